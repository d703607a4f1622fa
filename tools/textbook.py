"""The training loop of most CIFAR-10 code, beside which tools/bench.py measures the course's.

Images kept as PIL images, torchvision's transforms, a DataLoader with two workers, float32, no
channels_last, the loss read after every step.
"""

import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from tqdm import tqdm


class PILDataset:
    """PIL images and labels, as torchvision's CIFAR10 hands them out."""

    def __init__(self, images, labels, transform):
        self.images = images
        self.labels = labels
        self.transform = transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.transform(self.images[i]), self.labels[i]


def make_loader(images, labels, data, batch_size, training):
    """A DataLoader as in most CIFAR-10 code."""
    size = images.shape[2]
    mean = data.mean.flatten().cpu() / 255
    deviation = data.deviation.flatten().cpu() / 255
    steps = [transforms.ToTensor(), transforms.Normalize(mean, deviation)]
    if training:
        crop = transforms.RandomCrop(size, padding=size // 8)
        steps = [crop, transforms.RandomHorizontalFlip(), *steps]
    pil_images = [to_pil(image) for image in images.cpu()]
    dataset = PILDataset(pil_images, labels.tolist(), transforms.Compose(steps))
    return DataLoader(dataset, batch_size, shuffle=training, num_workers=2)


def to_pil(image):
    """A uint8 image (3, height, width) as a PIL image."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def training_loader(data, batch_size):
    """The loader of the training set."""
    return make_loader(data.train_images, data.train_labels, data, batch_size, training=True)


def test_loader(data):
    """The loader of the test set."""
    return make_loader(data.test_images, data.test_labels, data, 100, training=False)


def train(model, loader, epochs, seed, rate, weight_decay=5e-4, label=None):
    """SGD with momentum and a cosine schedule, as most CIFAR-10 code has it.

    With a label, each epoch shows a progress bar.
    """
    torch.manual_seed(seed)
    device = next(model.parameters()).device
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=rate, momentum=0.9, weight_decay=weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    for _ in range(epochs):
        model.train()
        running_loss = 0.0
        correct = 0
        for inputs, targets in tqdm(loader, desc=label, leave=False, disable=label is None):
            inputs = inputs.to(device)
            targets = targets.to(device)
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = criterion(outputs, targets)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            correct += (outputs.argmax(dim=1) == targets).sum().item()
        schedule.step()


def accuracy(model, loader):
    """The share of a loader's images that the model classifies correctly."""
    device = next(model.parameters()).device
    correct = 0
    model.eval()
    with torch.no_grad():
        for inputs, targets in loader:
            predictions = model(inputs.to(device)).argmax(dim=1)
            correct += (predictions == targets.to(device)).sum().item()
    return correct / len(loader.dataset)
