"""The routing file with what lies beside it on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from poe_gateway.routing.parse import RoutesError, parse
from poe_gateway.settings.routes import read_routes
from tests.unit.routes import LADDER


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "gateway.toml").write_text(LADDER + '[profiles.auto]\nmode = "reply"\n')
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "profiles").mkdir()
    return tmp_path


def problems(folder: Path) -> tuple[str, ...]:
    with pytest.raises(RoutesError) as caught:
        read_routes(folder / "gateway.toml")
    return caught.value.problems


def test_overlays_in_alphabetical_order_then_profiles(folder: Path) -> None:
    (folder / "conf.d" / "20-late.toml").write_text(
        '[[tiers]]\nname = "local:fast"\nbackend = "near"\nmodel = "late"\n'
    )
    (folder / "conf.d" / "10-early.toml").write_text(
        '[[tiers]]\nname = "local:fast"\nbackend = "near"\nmodel = "early"\n'
        '[[tiers]]\nname = "new:one"\nbackend = "far"\nmodel = "n"\n'
        '[profiles.auto]\nreply_message = "from the overlay"\n'
    )
    (folder / "conf.d" / "notes.txt").write_text("not read")
    (folder / "conf.d" / ".draft.toml").write_text("not read")
    (folder / "profiles" / "careful.toml").write_text('mode = "escalate"\n')
    (folder / "profiles" / "ha.toml").write_text('\ufeffname = "ha:fast"\nmode = "reply"\n', encoding="utf-8")
    sources = read_routes(folder / "gateway.toml")
    routes = parse(sources.document)
    assert [(tier.name, tier.model) for tier in routes.tiers][::4] == [("local:fast", "late"), ("new:one", "n")]
    assert routes.profiles["auto"].reply_message == "from the overlay"
    assert sorted(routes.profiles) == ["auto", "careful", "ha:fast"]
    names = [source.path.name for source in sources.files]
    assert names == ["gateway.toml", "10-early.toml", "20-late.toml", "careful.toml", "ha.toml"]
    assert sources.folders == (folder / "conf.d", folder / "profiles")


def test_a_profile_of_a_file_wins_as_a_whole(folder: Path) -> None:
    (folder / "profiles" / "auto.toml").write_text('mode = "escalate"\nmax_auto_tier = "cloud:economy"\n')
    profile = parse(read_routes(folder / "gateway.toml").document).profiles["auto"]
    assert (profile.mode, profile.max_auto_tier, profile.reply_message) == ("escalate", "cloud:economy", None)


def test_a_folder_of_profiles_that_is_named(folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "other.toml").write_text('mode = "reply"\n')
    (folder / "profiles" / "unread.toml").write_text('mode = "reply"\n')
    (folder / "conf.d" / "a.toml").write_text('[gateway]\nprofile_dir = "elsewhere"\n')
    sources = read_routes(folder / "gateway.toml")
    assert sorted(parse(sources.document).profiles) == ["auto", "other"]
    assert sources.folders[1] == folder / "elsewhere"
    for named in ("nowhere", "~no-such-user/profiles", "x" * 5000, "a\\u0000b"):
        (folder / "conf.d" / "a.toml").write_text(f'[gateway]\nprofile_dir = "{named}"\n')
        (problem,) = problems(folder)
        assert problem == f"{folder / 'gateway.toml'}: gateway.profile_dir: there is no such folder"


def test_one_file_alone_is_enough(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text("")
    assert parse(read_routes(tmp_path / "gateway.toml").document).digest


def test_the_digest_changes_with_any_file(folder: Path) -> None:
    digests = {read_routes(folder / "gateway.toml").digest}
    (folder / "conf.d" / "a.toml").write_text("")
    digests.add(read_routes(folder / "gateway.toml").digest)
    (folder / "conf.d" / "a.toml").write_text("# x")
    digests.add(read_routes(folder / "gateway.toml").digest)
    assert len(digests) == 3
    assert read_routes(folder / "gateway.toml").digest in digests


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[gateway\n", "is not TOML, line 1, column 9: expected ']' at the end of a table declaration"),
        (b"a = 1\na = 2\n", "is not TOML, line 2, column "),
        (b"[hunter2.x]\n[hunter2.x]\n", "is not TOML, line 2, column 11: cannot declare this table twice"),
        (b"a = {hunter2 = 1, hunter2 = 2}", "is not TOML, line 1, column 30: duplicate inline table key"),
        (b'key = "hunter2', "is not TOML, end of document: "),
        (b"x = hunter2", "is not TOML, line 1, column 5: "),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"a = 2026-13-45", "is not TOML"),
        (b"a = " + b"[" * 100_000, "is not TOML"),
        (b"#" * (1024 * 1024 + 1), "is larger than 1 MiB"),
    ],
    ids=["bracket", "twice", "table twice", "key twice", "open text", "bare word", "bytes", "date", "nesting", "size"],
)
def test_a_file_that_cannot_be_read_is_told_with_its_line(folder: Path, content: bytes, expected: str) -> None:
    (folder / "conf.d" / "bad.toml").write_bytes(content)
    (problem,) = problems(folder)
    assert problem.startswith(f"{folder / 'conf.d' / 'bad.toml'}: {expected}")
    assert "hunter2" not in problem and len(problem) < 400


def test_all_files_that_cannot_be_read_are_told(folder: Path) -> None:
    (folder / "conf.d" / "bad.toml").write_text("[")
    (folder / "profiles" / "bad.toml").write_text("]")
    (folder / "gateway.toml").unlink()
    told = problems(folder)
    assert len(told) == 3
    assert told[0] == f"{folder / 'gateway.toml'}: cannot be read: No such file or directory"


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(RoutesError) as caught:
        read_routes(tmp_path)
    assert "Is a directory" in str(caught.value)
