from __future__ import annotations

import pytest

from fgdemo.data.tables import number_keys, read_ids, read_json, read_table
from fgdemo.errors import UserError

HOW = "Fetch it."


@pytest.fixture
def write(tmp_path):
    def write(text: str):
        (tmp_path / "table.txt").write_bytes(text.encode("latin-1"))
        return tmp_path / "table.txt"

    return write


def test_rows_keep_their_order_and_their_words(write):
    path = write("b the  second\tone\r\n\n  a\t7 \n")
    assert list(read_table(path, HOW).items()) == [("b", "the second one"), ("a", "7")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 1\nb\n", r"table\.txt, line 2: expected a new id and its value, got 'b'\. Fetch it\."),
        ("a 1\n\na 2\n", r"table\.txt, line 3: expected a new id and its value, got 'a 2'\. Fetch it\."),
        ("a caf\xe9\n", r"table\.txt is not a text file\. Fetch it\."),
    ],
)
def test_damaged_tables_are_refused(write, text, message):
    with pytest.raises(UserError, match=message):
        read_table(write(text), HOW)


def test_whole_numbers(write):
    assert read_ids(write("a 7\nb 010\n"), HOW) == {"a": 7, "b": 10}
    for value in ("-1", "1.5", "x", "1 2"):
        with pytest.raises(UserError, match=f"expected a whole number after b, got '{value}'"):
            read_ids(write(f"a 7\nb {value}\n"), HOW)


def test_number_keys(write):
    path = write("10 ten\n2 two\n")
    assert number_keys(read_table(path, HOW), path, HOW) == {10: "ten", 2: "two"}
    with pytest.raises(UserError, match=r"table\.txt: 'two' is not the number of a class"):
        number_keys({"two": 2}, path, HOW)


def test_json_files(write):
    assert read_json(write('{"a": [1, "caf\\u00e9"]}'), HOW) == {"a": [1, "caf\u00e9"]}
    for text in ('{"a": [1,', "", '"caf\xe9"'):
        with pytest.raises(UserError, match=r"table\.txt is not a whole JSON file\. Fetch it\."):
            read_json(write(text), HOW)
