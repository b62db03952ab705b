"""Expressions against what MONAI makes of them."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.bundle.reference_resolver import ReferenceResolver

from medseg_ext.sharing.audit.expressions import ExpressionError, Scope, check_expression, import_of, substitute
from medseg_ext.sharing.audit.names import read_names

SCOPE = Scope(read_names(), {"os": frozenset({"os"}), "w": frozenset({"medseg_ext.workflow"})}, frozenset({"imports"}))


@pytest.mark.parametrize(
    "text",
    [
        "1 + 2 * 3",
        "[1] + [2] * (len(@features) - 1)",
        "@a.to(@device, memory_format=torch.channels_last)",
        "[{@image: i, @label: l} for i, l in @pairs]",
        "[{'image': i, 'label': l} for i, l in zip(@images, @labels)]",
        "lambda x: monai.handlers.from_engine(['loss'], first=True)(x)",
        "@train#trainer.run()",
        "w.run_engine(@train::trainer)",
        "int(os.environ['RANK'])",
        "os.environ.get('LOCAL_RANK', 0)",
        "setattr(torch.backends.cudnn, 'benchmark', True)",
        'f"{@name}_{1:03d}"',
        "torch.distributed.init_process_group('gloo')",
        "monai.utils.CommonKeys.IMAGE",
        "np.zeros((2, 3)).astype(np.float32)",
        "monai.transforms.LoadImaged(keys='image')",
        "@network.eval()",
        "None if @fold < 0 else @fold",
        "@a | @b.names | {'x': None}",
    ],
)
def test_allowed(text: str) -> None:
    check_expression(text, SCOPE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("torch.os.system('x')", "the name torch.os.system"),
        ("(1).__class__", "the attribute __class__"),
        ("os.environ['HOME']", "os.environ['HOME']"),
        ("@imports::0", "a reference to a module, @imports::0"),
        ("@", "a reference to no id"),
        ("open('x')", "the name open"),
        ("f(**@a)", "arguments given by **"),
        ("'x'.format(1)", "the attribute format"),
        ("[i for os in @a]", "the name os bound over another"),
        ("1 << 10**11", "a power or shift with another in it"),
        ("os.listdir('.')", "the name os.listdir"),
    ],
)
def test_refused(text: str, said: str) -> None:
    with pytest.raises(ExpressionError) as error:
        check_expression(text, SCOPE)
    assert str(error.value) == said


@settings(deadline=None)
@given(st.text(st.sampled_from("@ab#: '_.$%()"), max_size=20))
def test_references_are_replaced_as_monai_does(text: str) -> None:
    class Any(dict):
        def __contains__(self, key: object) -> bool:
            return True

    assert "$" + substitute(text) == ReferenceResolver.update_refs_pattern("$" + text, Any(x=1))


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("import os", ("os", "os")),
        ("import numpy as np", ("np", "numpy")),
        ("from a.b import c", ("c", "a.b.c")),
        ("from a import b as c", ("c", "a.b")),
        ("1 + 1", None),
        ("'import'", None),
    ],
)
def test_imports(text: str, bound: tuple[str, str] | None) -> None:
    assert import_of(text) == bound


def test_nothing_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.eval", None)
    monkeypatch.setattr("builtins.exec", None)
    check_expression("torch.device('cpu')", SCOPE)
    assert isinstance(ast.parse(substitute("@a + 1"), mode="eval"), ast.Expression)
