"""What an instructor should look at in a script, by look_at.txt, with lines. No grade changes.

What the learner's file came with, and what stands under `if __name__ == "__main__":`, is passed
over.
"""

import ast
import difflib
import re
from collections import Counter
from pathlib import Path

LIST = Path(__file__).with_name("look_at.txt").read_text("utf-8")
PATTERNS = re.findall(r"(?m)^([^#\n].*) \[(.*)\]$", LIST)
CHANGES = re.compile(r"(get|set|del)attr(__)?$")  # by name
ALIKE = 0.95  # the share of their tasks' code that two scripts have in common
LEAST = 100  # words of code; less is alike by chance


def parse(data):
    """The syntax tree of a script's bytes, read as Python reads them; an empty one if it cannot."""
    try:
        return ast.parse(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.parse("")


def nodes_of(tree):
    """All nodes but docstrings, and what runs only when the script is a command."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'":
            node = ast.Module(node.orelse, [])
        yield node
        yield from nodes_of(node)


def imports(node):
    """{a name: what it stands for} of an import."""
    names = {}
    for alias in node.names:
        first = alias.name.partition(".")[0]
        if isinstance(node, ast.ImportFrom):
            names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        else:
            names[alias.asname or first] = alias.name if alias.asname else first
    return names


def terms(tree):
    """(line, term) of all that look_at.txt may speak of."""
    imported = {}
    for node in nodes_of(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported.update(imports(node))
            yield from ((line, name) for name in imports(node).values())
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield line, f"{node.id} ="
        elif isinstance(node, ast.Name | ast.Attribute):
            first, dot, rest = ast.unparse(node).partition(".")
            name = imported.get(first, f".{first}" if dot else first) + dot + rest
            if not re.fullmatch(r"[\w.]+", name):
                name = f".{node.attr}"
            yield line, name if isinstance(node.ctx, ast.Load) else f"{name} ="
        elif isinstance(node, ast.FunctionDef):
            yield line, f"def {node.name}"
        elif isinstance(node, ast.Call) and node.args and CHANGES.search(ast.unparse(node.func)):
            yield line, f"{ast.unparse(node.func)}({ast.unparse(node.args[0])}"
        elif isinstance(node, ast.MatchClass):
            yield line, "match class"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield line, f"'{node.value}'"
        elif isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict):
            values = [child for child in ast.walk(node) if isinstance(child, ast.Constant)]
            yield line, f"table of {len(values)}"


def remarks(data, exercise):
    """[(line, a term and why it may be worth a look), ...], in the order of the lines."""
    found = set()
    for line, term in terms(parse(data)):
        reasons = [reason for pattern, reason in PATTERNS if re.fullmatch(pattern, term)]
        if reasons and not (exercise == "5" and "networks" in reasons[0]):
            found.add((line, f"{term[:60]} ({reasons[0]})"))
    return sorted(found)


def look_at(data, stub, exercise):
    """["line 12: sys.modules (reaches into Python)", ...]; stub: the learner's file as it came."""
    usual = Counter(text for _, text in remarks(stub, exercise))
    found = []
    for line, text in remarks(data, exercise):
        usual[text] -= 1
        found += [f"line {line}: {text}"] * (usual[text] < 0)
    return found


def shape(data, stub):
    """What a learner has written, as words of its syntax in which local names are numbers."""
    came = {ast.dump(node) for node in nodes_of(parse(stub)) if isinstance(node, ast.FunctionDef)}
    words = []
    for function in nodes_of(parse(data)):
        if isinstance(function, ast.FunctionDef) and ast.dump(function) not in came:
            numbers = {}
            for node in nodes_of(function):
                name = getattr(node, "id", getattr(node, "arg", ""))
                number = numbers.setdefault(name, len(numbers))
                words.append(f"{type(node).__name__}{number}{getattr(node, 'attr', '')}")
    return words


def alike(shapes):
    """[[learner, ...], ...]: groups whose tasks have nearly the same code. shapes: by learner."""
    groups = []
    for learner in (learner for learner, words in shapes.items() if len(words) > LEAST):
        matcher = difflib.SequenceMatcher(b=shapes[learner], autojunk=False)
        for group in groups:
            matcher.set_seq1(shapes[group[0]])
            if matcher.quick_ratio() > ALIKE and matcher.ratio() > ALIKE:
                group.append(learner)
                break
        else:
            groups.append([learner])
    return [group for group in groups if len(group) > 1]
