"""What bad input gets."""

from divkd.cli.main import run


def refused(line, value, mend, capsys, folder):
    """`line` is refused: exit code 2, one line that names the value and the mend, nothing changed below `folder`."""

    def content():
        return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}

    before = content()
    assert run(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert value in err
    assert mend in err
    assert content() == before
