"""Templates of --format: fields, one of what a field has, JSON; what is refused."""

from __future__ import annotations

import pytest

from storagedrivers.cli import templates
from storagedrivers.cli.templates import Pairs
from storagedrivers.errors import StoreError

FIELDS = ("Name", "Labels", "Options", "Size", "Anonymous", "State", "List")
ROW = {
    "Name": "db",
    "Labels": {"c": "d", "a": "b", "org.x": "y"},
    "Options": None,
    "Size": None,
    "Anonymous": True,
    "State": {"Inner": {"Deep": 3}},
    "List": ["x", {"k": "v"}],
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{.Name}} {{ .Name }}", "db db"),
        ("{{.Labels}}", "map[a:b c:d org.x:y]"),
        ("{{.Labels.a}}", "b"),
        ("{{.Labels.none}}|", "|"),
        ('{{index .Labels "org.x"}}', "y"),
        ('{{.Label "a"}}', "b"),
        ("{{.Options}}", "map[]"),
        ("{{.Options.type}}|", "|"),
        ("{{json .Options}}", "null"),
        ("{{json .Labels.a}}", '"b"'),
        ("{{.Size}} {{.Anonymous}}", "<nil> true"),
        ("{{.State.Inner.Deep}} {{json .State}}", '3 {"Inner": {"Deep": 3}}'),
        ('{{index .State.Inner "Deep"}}', "3"),
        ("{{.List}}", "[x map[k:v]]"),
        ("}} {{.Name}}", "}} db"),
    ],
)
def test_values(template: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    templates.print_all(template, [ROW], FIELDS)
    assert capsys.readouterr().out == f"{expected}\n"


def test_pairs_are_a_text_and_one_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"Labels": Pairs({"b": "2", "a": "1"})}, {"Labels": Pairs({})}]
    templates.print_all('{{.Labels}} {{.Labels.a}}{{index .Labels "b"}}', rows, ["Labels"])
    assert capsys.readouterr().out == "a=1,b=2 12\n \n"
    templates.print_all("{{json .}}", rows[:1], ["Labels"])
    assert capsys.readouterr().out == '{"Labels": "a=1,b=2"}\n'
    templates.print_all(r"table {{.Labels}}\t{{.Labels.a}}", rows[:1], ["Labels"])
    assert capsys.readouterr().out == "LABELS   A\na=1,b=2  1\n"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{.Name", "{{.Name is not closed"),
        ("{{.Name}} {{", "{{ is not closed"),
        ("{{range .List}}", "means nothing here"),
        ("{{.}}", "means nothing here"),
        ("{{.name}}", "there is no field name"),
        ("{{.name.x}}", "there is no field name"),
        ("{{.Name.x}}", "the field Name has no parts"),
        ('{{index .None "x"}}', "there is no field None"),
    ],
)
def test_what_is_no_template(template: str, said: str) -> None:
    with pytest.raises(StoreError) as caught:
        templates.print_all(template, [ROW], FIELDS)
    assert said in str(caught.value)
    assert caught.value.resolution


def test_it_is_refused_without_rows_too() -> None:
    with pytest.raises(StoreError, match="not closed"):
        templates.print_all("{{.Name", [], FIELDS)
