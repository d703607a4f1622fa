"""What an instructor should look at in a script, by look_at.txt, with lines. No grade changes.

What the learner's file came with, and what stands under `if __name__ == "__main__":`, is passed
over.
"""

import ast
import re
from collections import Counter
from pathlib import Path

LIST = Path(__file__).with_name("look_at.txt").read_text("utf-8")
PATTERNS = re.findall(r"(?m)^([^#\n].*) \[(.*)\](?: but in exercise (\d))?$", LIST)
CHANGES = re.compile(r"(get|set|del)attr(__)?$")  # by name
ALIKE = 0.92  # the share of their tasks' code that two scripts have in common
LEAST = 100  # words of code; less is alike by chance


def parse(data):
    """The syntax tree of a script's bytes, read as Python reads them; an empty one if it cannot."""
    try:
        return ast.parse(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.parse("")


def nodes_of(tree):
    """All nodes, without docstrings and without what runs only when the script is a command."""
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
    module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    for alias in node.names:
        bound = alias.asname or alias.name.partition(".")[0]
        names[bound] = module + (alias.name if alias.asname else bound)
    return names


def terms(tree):
    """(line, term) of all that look_at.txt may speak of."""
    imported = {}
    for node in nodes_of(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = imports(node)
            imported.update(names)
            for name in names.values():
                yield line, name
        else:
            yield line, term(node, imported)


def term(node, imported):
    """What look_at.txt calls a node that is no import; "" for what it does not speak of."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return f"{name} ="
        case ast.Name() | ast.Attribute():
            return full_name(node, imported)
        case ast.FunctionDef(name=name):
            return f"def {name}"
        case ast.Call(func=function, args=[argument, *_]):
            call = ast.unparse(function)
            return f"{call}({ast.unparse(argument)}" if CHANGES.search(call) else ""
        case ast.MatchClass():
            return "match class"
        case ast.Constant(value=str(text)):
            return f"'{text[:9999]}'"
        case ast.Constant(value=int(number)):
            return f"number {number}"
        case ast.List() | ast.Tuple() | ast.Set() | ast.Dict():
            values = [child for child in ast.walk(node) if isinstance(child, ast.Constant)]
            return f"table of {len(values)}"
    return ""


def full_name(node, imported):
    """The name of a Name or an Attribute, with imports followed; with " =" if it is changed."""
    first, dot, rest = ast.unparse(node).partition(".")
    own = f".{first}" if dot else first
    name = imported.get(first, own) + dot + rest
    if isinstance(node, ast.Attribute) and not re.fullmatch(r"[\w.]+", name):
        name = f".{node.attr}"
    return name if isinstance(node.ctx, ast.Load) else f"{name} ="


def remarks(data, exercise):
    """[(line, a term and why it may be worth a look), ...], in the order of the lines."""
    found = set()
    for line, term in terms(parse(data)):
        for pattern, reason, allowed_in in PATTERNS:
            if re.fullmatch(pattern, term) and exercise != allowed_in:
                found.add((line, f"{term[:60]} ({reason})"))
                break
    return sorted(found)


def look_at(data, stub, exercise):
    """["line 12: sys.modules (reaches into Python)", ...]; stub: the learner's file as it came."""
    usual = Counter(text for _, text in remarks(stub, exercise))
    lines = []
    for line, text in remarks(data, exercise):
        usual[text] -= 1
        if usual[text] < 0:  # there are more of these than the file came with
            lines.append(f"line {line}: {text}")
    return lines


def functions(data):
    """The functions and methods of a script's bytes."""
    return [node for node in nodes_of(parse(data)) if isinstance(node, ast.FunctionDef)]


def shape(data, stub):
    """{a word of its syntax: how often it occurs} in what a learner has written.

    Names, the order of statements, and what has become of the functions that came finished make no
    difference.
    """
    came = functions(stub)
    tasks = {function.name for function in came if "NotImplementedError" in ast.unparse(function)}
    finished = {function.name for function in came} - tasks
    as_they_came = {ast.dump(function) for function in came}
    words = Counter()
    for function in functions(data):
        if function.name not in finished and ast.dump(function) not in as_they_came:
            for node in nodes_of(function):
                words[f"{type(node).__name__} {getattr(node, 'attr', '')}"] += 1
    return words


def alike(shapes):
    """[[learner, ...], ...]: groups whose tasks have nearly the same code. shapes: by learner."""
    groups = []
    for learner, words in shapes.items():
        if sum(words.values()) <= LEAST:
            continue
        for group in groups:
            if similarity(words, shapes[group[0]]) > ALIKE:
                group.append(learner)
                break
        else:
            groups.append([learner])
    return [group for group in groups if len(group) > 1]


def similarity(first, second):
    """From 0 to 1: how many words two shapes have in common, of those of the larger one."""
    common = sum((Counter(first) & Counter(second)).values())
    return common / max(sum(first.values()), sum(second.values()))
