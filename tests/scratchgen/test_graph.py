"""The Mermaid text of a graph: its boxes, its arrows, and that nothing in a label can break it."""

import re
from dataclasses import replace

import numpy as np

from scratchgen import Tensor, no_grad, ops
from scratchgen.graph import mermaid
from scratchgen.op import REGISTRY
from scratchgen.tensor import apply


def parsed(text):
    """The labels of all boxes and of all leaves by name, and the arrows as pairs of labels."""
    head, *lines = text.split("\n    ")
    assert head == "flowchart TD"
    boxes = dict(match.groups() for line in lines if (match := re.fullmatch(r'(t\d+)\["([^"]*)"\]', line)))
    leaves = dict(match.groups() for line in lines if (match := re.fullmatch(r'(t\d+)\(\["([^"]*)"\]\)', line)))
    arrows = [match.groups() for line in lines if (match := re.fullmatch(r"(t\d+) --> (t\d+)", line))]
    assert len(boxes) + len(leaves) + len(arrows) == len(lines)
    labels = boxes | leaves
    return list(boxes.values()), list(leaves.values()), [(labels[start], labels[end]) for start, end in arrows]


def test_mermaid_draws_an_arrow_for_each_use_of_a_tensor():
    a = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    b = a + a
    assert mermaid(b * b) == (
        "flowchart TD\n"
        '    t0(["leaf (3,)<br/>requires_grad"])\n'
        '    t1["add<br/>(3,)"]\n'
        '    t2["multiply<br/>(3,)"]\n'
        "    t0 --> t1\n"
        "    t0 --> t1\n"
        "    t1 --> t2\n"
        "    t1 --> t2"
    )


def test_mermaid_draws_a_dense_layer_and_its_loss():
    x = Tensor(np.ones((5, 4)))
    weight = Tensor(np.ones((4, 3)), requires_grad=True)
    bias = Tensor(np.ones(3), requires_grad=True)
    boxes, leaves, arrows = parsed(mermaid(ops.square(ops.dense(x, weight, bias)).mean()))
    assert sorted(boxes) == ["dense<br/>(5, 3)", "mean<br/>()", "square<br/>(5, 3)"]
    assert leaves == ["leaf (5, 4)", "leaf (4, 3)<br/>requires_grad", "leaf (3,)<br/>requires_grad"]
    assert sorted(arrows) == [
        ("dense<br/>(5, 3)", "square<br/>(5, 3)"),
        ("leaf (3,)<br/>requires_grad", "dense<br/>(5, 3)"),
        ("leaf (4, 3)<br/>requires_grad", "dense<br/>(5, 3)"),
        ("leaf (5, 4)", "dense<br/>(5, 3)"),
        ("square<br/>(5, 3)", "mean<br/>()"),
    ]


def test_mermaid_draws_a_deep_graph_of_many_paths():
    x = Tensor(1.0, requires_grad=True)
    for _ in range(20_000):
        x = x * x  # 2^20,000 paths lead to the leaf
    boxes, leaves, arrows = parsed(mermaid(x))
    assert (len(boxes), len(leaves), len(arrows)) == (20_000, 1, 40_000)


def test_mermaid_draws_a_tensor_without_a_graph_as_a_leaf():
    x = Tensor(np.ones((2, 3)), requires_grad=True)
    with no_grad():
        y = x + x
    assert mermaid(y) == 'flowchart TD\n    t0(["leaf (2, 3)"])'


def test_mermaid_escapes_the_names_of_operations():
    odd = replace(REGISTRY["exp"], name='end "]; <b>#`\n')
    (box,), _, _ = parsed(mermaid(apply(odd, Tensor(1.0, requires_grad=True))))
    assert box == "end #34;]; #60;b#62;#35;#96;#10;<br/>()"
