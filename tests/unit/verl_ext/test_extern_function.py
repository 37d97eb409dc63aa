"""A function that an option names."""

from pathlib import Path

import pytest

from verl_ext.extern_function import extern_function

pytestmark = pytest.mark.unit


def test_a_function_of_a_file_or_of_a_package(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def twice(x):\n    return 2 * x\n")
    assert extern_function(f"{tmp_path}/mine.py:twice")(3) == 6
    assert extern_function("pkg://os.path:basename")("a/b") == "b"


@pytest.mark.parametrize("name", ["nowhere.py:f", "my.py:missing", "my.py", "my.py:number", "broken.py:f"])
def test_one_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text("number = 3")
    Path("broken.py").write_text("1 / 0")
    with pytest.raises(ValueError, match=f"^{name} (cannot be loaded|is no function)"):
        extern_function(name)
