import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from facednerf_core import observers
from facednerf_core.errors import InputError
from facednerf_core.events import Event, Failed, Finished, Noted, Observer, Saved, Started, Stepped

RUN = Path("runs/one")
STAGES = {"invert": 20, "edit": 10}


def stepped(stage: str, index: int, seconds: float = 2.0, **losses: float) -> Stepped:
    state: Any = object()
    return Stepped(stage, index, STAGES[stage], losses or {"identity": 0.25}, {"psnr": 20.0}, seconds, state)


def run(observer: Observer, resumed_at: tuple[str, int] | None = None, until: tuple[str, int] = ("edit", 10)) -> None:
    observer(Started(RUN, STAGES, resumed_at))
    begun = resumed_at is None
    for stage, total in STAGES.items():
        for index in range(total):
            if (stage, index) == until:
                return
            begun = begun or (stage, index) == resumed_at
            if begun:
                observer(stepped(stage, index))
    observer(Finished(RUN, 60.0, {"after": RUN / "after.png"}, {"psnr": 30.0}))


def logged(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_time_left_counts_stages_to_come_and_their_own_pace():
    pace = observers.Pace()
    pace(Started(RUN, STAGES))
    assert pace.left() is None
    for index in range(20):
        pace(stepped("invert", index, seconds=2.0))
    assert pace.left() == pytest.approx(10 * 2.0)
    pace(stepped("edit", 0, seconds=5.0))
    assert pace.left() == pytest.approx(9 * 5.0)
    pace(Started(RUN, STAGES, ("edit", 4)))
    assert pace.left() == pytest.approx(6 * 5.0)


@pytest.mark.parametrize(("seconds", "said"), [(8.4, "8 s"), (65, "1:05 min"), (7390, "2:03:10 h"), (-1, "0 s")])
def test_durations(seconds, said):
    assert observers.duration(seconds) == said


def test_the_largest_losses_are_shown_in_their_own_order():
    values = {f"t{number}": float(number) for number in range(8)} | {"broken": math.nan}
    assert observers.losses(values) == "t4 4  t5 5  t6 6  t7 7  broken nan"
    assert observers.losses({"identity": 0.12345, "guidance": 12345.6}) == "identity 0.123  guidance 1.23e+04"


def test_plain_lines_come_at_every_tenth():
    stream = io.StringIO()
    lines = observers.Lines(stream, every=1e9)
    run(lines)
    lines(Noted("two [faces]", "warning"))
    said = stream.getvalue().splitlines()
    assert said[0] == "runs/one: steps invert 20, edit 10"
    assert sum(line.startswith("invert ") for line in said) == 11
    assert "identity 0.25" in said[1]
    assert "58 s left" in said[1]
    assert any(line.startswith("invert 20/20") for line in said)
    assert "finished in 1:00 min" in said
    assert said[-1] == "warning: two [faces]"
    assert "\x1b" not in stream.getvalue()


def test_plain_lines_come_every_few_seconds():
    stream = io.StringIO()
    lines = observers.Lines(stream, every=0.0)
    lines(Started(RUN, {"invert": 20}, ("invert", 3)))
    for index in range(3, 20):
        lines(stepped("invert", index))
    lines(Failed(RUN, "interrupted", "invert", 19))
    said = stream.getvalue().splitlines()
    assert "from invert step 3" in said[0]
    assert len(said) == 1 + 17 + 1
    assert said[-1] == "stopped in invert, step 19: interrupted"


def test_bars_show_losses_and_time_left():
    stream = io.StringIO()
    bars = observers.Bars(Console(file=stream, force_terminal=True, width=120))
    run(bars, until=("edit", 3))
    bars(Noted("two [red]faces", "warning"))
    bars(Failed(RUN, "interrupted", "edit", 2))
    shown = stream.getvalue()
    for piece in ("invert", "20/20", "3/10", "identity 0.25", "14 s left", "two [red]faces"):
        assert piece in shown, piece
    bars.close()


def test_bars_begin_where_a_run_goes_on():
    stream = io.StringIO()
    bars = observers.Bars(Console(file=stream, force_terminal=True, width=120))
    bars(Started(RUN, STAGES, ("edit", 4)))
    bars.close()
    assert "20/20" in stream.getvalue()
    assert "4/10" in stream.getvalue()


def test_every_event_is_a_line_of_json_as_it_happens(tmp_path: Path):
    log = observers.Log(tmp_path / "events.jsonl")
    events: list[Event] = [
        Started(RUN, STAGES),
        stepped("invert", 0, identity=math.nan, latent=0.5),
        Noted("two faces"),
        Saved(RUN / "latent.safetensors", "latent"),
        Failed(RUN, "interrupted", "invert", 1),
    ]
    for count, event in enumerate(events, 1):
        log(event)
        assert len(logged(log.path)) == count
    lines = logged(log.path)
    assert [line["event"] for line in lines] == ["Started", "Stepped", "Noted", "Saved", "Failed"]
    assert lines[1]["losses"] == {"identity": None, "latent": 0.5}
    assert "state" not in lines[1]
    assert lines[3]["path"] == "runs/one/latent.safetensors"


@pytest.mark.parametrize("resumed_at", [("invert", 0), ("invert", 7), ("edit", 0), ("edit", 4)])
def test_what_came_after_the_checkpoint_is_dropped(tmp_path: Path, resumed_at):
    log = observers.Log(tmp_path / "events.jsonl")
    run(log, until=("edit", 6))
    log(Failed(RUN, "killed", "edit", 6))
    with log.path.open("a") as file:
        file.write('{"event": "Stepp')  # cut short
    run(log, resumed_at)
    steps = [(line["stage"], line["index"]) for line in logged(log.path) if line["event"] == "Stepped"]
    assert steps == [("invert", index) for index in range(20)] + [("edit", index) for index in range(10)]
    assert not any(line["event"] == "Failed" for line in logged(log.path))
    assert [line["event"] for line in logged(log.path)].count("Started") == 2


def test_a_run_that_begins_anew_has_a_new_log(tmp_path: Path):
    log = observers.Log(tmp_path / "events.jsonl")
    run(log)
    run(log)
    assert [line["event"] for line in logged(log.path)].count("Started") == 1


def test_a_log_that_cannot_be_written_is_said(tmp_path: Path):
    with pytest.raises(InputError, match=r"cannot write .*events\.jsonl"):
        observers.Log(tmp_path / "gone" / "events.jsonl")(Noted("hello"))


def test_who_watches(capsys):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert isinstance(observers.watcher(stream=Terminal()), observers.Bars)
    assert isinstance(observers.watcher(stream=io.StringIO()), observers.Lines)
    run(observers.watcher(json_only=True, stream=Terminal()))
    assert capsys.readouterr() == ("", "")
