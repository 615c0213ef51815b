"""The computation graph of a tensor as Mermaid text, which GitHub draws."""

from scratchgen.tensor import Tensor

_ESCAPES = {ord(character): f"#{ord(character)};" for character in '#&"<>`\n'}  # Mermaid's entities


def mermaid(result: Tensor) -> str:
    """The operations and leaves that ``result`` was computed from.

    A box is an operation and the shape of its output. A rounded box is a leaf: its shape, and whether it requires a
    gradient. An arrow leads from each input to its operation; there are two where both inputs are the same tensor.

    Returns the text of a ```mermaid block, without the fences. Mermaid draws at most 500 arrows by default.
    """
    tensors, waiting = dict[int, Tensor](), [result]
    while waiting:  # a loop, not a recursion: the graph may be as deep as memory allows
        tensor = waiting.pop()
        if id(tensor) not in tensors:
            tensors[id(tensor)] = tensor
            waiting += tensor.node.inputs if tensor.node else ()
    names = {key: f"t{number}" for number, key in enumerate(reversed(tensors))}
    boxes, arrows = [], []
    for key, name in names.items():
        tensor = tensors[key]
        if tensor.node:
            boxes.append(f'{name}["{tensor.node.op.name.translate(_ESCAPES)}<br/>{tensor.shape}"]')
            arrows += [f"{names[id(source)]} --> {name}" for source in tensor.node.inputs]
        else:
            boxes.append(f'{name}(["leaf {tensor.shape}{"<br/>requires_grad" if tensor.requires_grad else ""}"])')
    return "\n    ".join(["flowchart TD", *boxes, *arrows])
