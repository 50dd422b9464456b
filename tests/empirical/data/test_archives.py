"""Archives: what is unpacked is all of it, and an archive that was tampered with leaves nothing."""

import hashlib
import io
import os
import stat
import tarfile
import zipfile

import pytest

from divkd.empirical.data.archives import unpack
from divkd.shared.errors import InputError

GOOD = {"set/a.bin": b"a" * 3000, "set/deep/b.bin": b"b"}


def tar(path, files=GOOD, extra=()):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in extra:
            archive.addfile(member)
    return path


def zipped(path, files=GOOD):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("set/", "")
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def special(name, kind, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def place(tmp_path):
    """Where the archive lies, in a folder of its own, so that what leads outside would be seen."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.mark.parametrize(("make", "name"), [(tar, "set.tar.gz"), (zipped, "set.zip")])
def test_an_archive_is_unpacked_whole(place, make, name):
    archive = make(place / name)
    unpack(archive, place / "set", md5(archive))
    assert {str(p.relative_to(place)): p.read_bytes() for p in (place / "set").rglob("*") if p.is_file()} == GOOD
    assert {p.name for p in place.iterdir()} == {"set", name}
    assert not (place / "set/a.bin").stat().st_mode & stat.S_IXUSR


EVIL = {
    "parent": lambda p: tar(p / "set.tar.gz", {**GOOD, "set/../../evil": b"x"}),
    "symlink": lambda p: tar(p / "set.tar.gz", extra=[special("set/evil", tarfile.SYMTYPE, "/etc")]),
    "device": lambda p: tar(p / "set.tar.gz", extra=[special("set/evil", tarfile.CHRTYPE)]),
}


@pytest.mark.parametrize("kind", EVIL)
def test_what_would_be_written_elsewhere_writes_nothing(place, kind):
    archive = EVIL[kind](place)
    with pytest.raises(InputError, match=r"is damaged.*evil"):
        unpack(archive, place / "set", md5(archive))
    assert [p for p in place.parent.rglob("*") if p.is_file()] == [archive]
    assert not (place / "set").exists()


def test_wrong_sums_damage_and_other_content_are_one_line(place):
    archive = tar(place / "set.tar.gz")
    with pytest.raises(InputError, match=r"md5 sum .* 0123 is published; fetch it again"):
        unpack(archive, place / "set", "0123")
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"is damaged|cannot be unpacked"):
        unpack(archive, place / "set", md5(archive))
    other = zipped(place / "other.zip")
    with pytest.raises(InputError, match="holds no other/"):
        unpack(other, place / "other", md5(other))
    with pytest.raises(InputError, match=r"absent\.zip cannot be unpacked"):
        unpack(place / "absent.zip", place / "set", "0")
    assert {p.name for p in place.iterdir()} == {"set.tar.gz", "other.zip"}


def test_where_another_process_was_faster_its_folder_stays(place, monkeypatch):
    archive = tar(place / "set.tar.gz")
    real = os.replace

    def late(source, target):
        target.mkdir()
        (target / "theirs").write_bytes(b"")
        return real(source, target)

    monkeypatch.setattr(os, "replace", late)
    unpack(archive, place / "set", md5(archive))
    assert [p.name for p in (place / "set").iterdir()] == ["theirs"]
    assert {p.name for p in place.iterdir()} == {"set", "set.tar.gz"}
