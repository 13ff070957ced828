"""Pictures of a search against the numbers they were made of, fronts by brute force, and a real browser."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.errors import HwnasError
from hwnas.reports.search_figures import Generation, Objective, Point
from hwnas.reports.search_report import write_search_report

MACS = Objective("multiply-accumulates", "MACs", "256x256")
PARAMS = Objective("parameters", "Params", "")
HOSTILE = "</script><script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">&lt;"
NETWORK = "conv_f64_k3_b4_isskip groupConG4_f16_k3_b4_noskip"

CANDIDATES = [
    Point(0, 37.0, (9e9, 400e3), 1, False, False, NETWORK),
    Point(0, 36.0, (9e9, 500e3), None, False, False, NETWORK),
    Point(1, 35.5, (2e9, 100e3), 0, True, False, NETWORK),
    Point(1, 34.0, (3e9, 200e3), None, False, True, NETWORK),
]
HISTORY = [Generation(0, 2, 0.25, 37.0, (9e9, 400e3)), Generation(1, 4, 0.5, 37.0, (2e9, 100e3))]


class Page(HTMLParser):
    """What a browser reads: text, table rows, figures, and all that it would fetch or run."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.rows: list[list[str]] = []
        self.figures: list[Any] = []
        self.hover: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in ("meta", "circle", "path"):
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("circle", "path"):
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open:
            return
        self.texts[self._open[-1]][-1] += data
        if self._open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        if self._open[-1] == "script" and self.tags[-1][1].get("class") == "figure":
            self.figures.append(json.loads(data))
        if self._open[-1] == "script" and self.tags[-1][1].get("id") == "hover":
            self.hover = json.loads(data)

    def trace(self, figure: int, name: str) -> Any:
        return next(trace for trace in self.figures[figure]["data"] if trace["name"] == name)


def written(
    folder: Path,
    candidates: Sequence[Point] = CANDIDATES,
    history: Sequence[Generation] = HISTORY,
    objectives: Sequence[Objective] = (MACS, PARAMS),
    title: str = "Search of runs/mine",
    subtitle: Sequence[str] = ("3 failed",),
) -> Path:
    path = folder / "search.html"
    write_search_report(path, title, subtitle, objectives, candidates, history)
    return path


def test_every_pair_of_objectives_has_a_picture_and_costs_are_on_logarithmic_axes(tmp_path: Path) -> None:
    page = Page(written(tmp_path))
    axes = [
        [(figure["layout"][axis]["title"]["text"], figure["layout"][axis].get("type")) for axis in ("xaxis", "yaxis")]
        for figure in page.figures
    ]
    macs, params = ("multiply-accumulates at 256x256 (MACs)", "log"), ("parameters (Params)", "log")
    psnr = ("PSNR after short training (dB)", None)
    assert axes[:3] == [[macs, psnr], [params, psnr], [macs, params]]
    assert len(axes) == 4
    three = [replace(one, least=(*one.least, 1.0)) for one in HISTORY]
    assert len(Page(written(tmp_path, [], three, objectives=(MACS, PARAMS, MACS))).figures) == 1


def test_each_candidate_is_on_each_picture_once_as_what_it_is(tmp_path: Path) -> None:
    page = Page(written(tmp_path))
    kinds = {"front": [0], "candidates": [1], "chosen": [2], "given up": [3]}
    for figure, across, up in ((0, 0, None), (1, 1, None), (2, 0, 1)):
        for name, indices in kinds.items():
            trace = page.trace(figure, name)
            assert trace["customdata"] == indices
            assert trace["x"] == [CANDIDATES[i].costs[across] for i in indices]
            assert trace["y"] == [CANDIDATES[i].psnr if up is None else CANDIDATES[i].costs[up] for i in indices]
    assert page.trace(0, "given up")["marker"]["symbol"] == "circle-open"


def test_a_candidate_that_is_pointed_at_says_all_that_is_known_of_it(tmp_path: Path) -> None:
    hover = Page(written(tmp_path)).hover
    assert hover[0].split("<br>") == [
        "point 1 on the front",
        "generation 0",
        "PSNR 37.00 dB",
        "multiply-accumulates at 256x256: 9 GMACs",
        "parameters: 400 kParams",
        *NETWORK.split(),
    ]
    assert hover[1].startswith("not on the front<br>")
    assert hover[2].startswith("point 0 on the front, chosen<br>")
    assert "generation 1, given up early" in hover[3]


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(
        st.tuples(st.integers(30, 35), st.integers(1, 6), st.integers(1, 6), st.booleans()), min_size=1, max_size=25
    )
)
def test_the_line_is_the_front_of_the_pair_as_by_brute_force(
    values: list[tuple[int, int, int, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    def better(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
        return a != b and a[0] >= b[0] and all(x <= y for x, y in zip(a[1:], b[1:], strict=True))

    trained = [(psnr, *costs) for psnr, *costs, stopped in values if not stopped]
    candidates, fronts = [], 0
    for psnr, *costs, stopped in values:
        is_front = not stopped and not any(better(other, (psnr, *costs)) for other in trained)
        point = fronts if is_front else None
        fronts += is_front
        candidates.append(Point(0, float(psnr), tuple(map(float, costs)), point, point == 0, stopped, ""))
    page = Page(written(tmp_path_factory.mktemp("page"), candidates))
    for cost in (0, 1):
        pairs = {(psnr, costs[cost]) for psnr, *costs in trained}
        expected = sorted((c, p) for p, c in pairs if not any(better(other, (p, c)) for other in pairs))
        line = page.trace(cost, "front of the pair")
        assert list(zip(line["x"], line["y"], strict=True)) == expected
        assert line["line"]["shape"] == "hv"
    assert all(trace["mode"] != "lines" for trace in page.figures[2]["data"])


def test_hypervolume_over_generations_says_how_many_were_evaluated(tmp_path: Path) -> None:
    page = Page(written(tmp_path))
    trace = page.trace(3, "hypervolume")
    assert (trace["x"], trace["y"]) == ([0, 1], [0.25, 0.5])
    assert "4 candidates so far" in trace["text"][1]


def test_the_tables_say_how_the_best_moved_and_what_the_front_is(tmp_path: Path) -> None:
    assert Page(written(tmp_path)).rows == [
        ["generation", "candidates", "PSNR, dB", "multiply-accumulates at 256x256", "parameters"],
        ["0", "2", "37.00", "9 GMACs", "400 kParams"],
        ["1", "4", "37.00", "2 GMACs", "100 kParams"],
        ["point", "PSNR, dB", "multiply-accumulates at 256x256", "parameters", "network"],
        ["0", "35.50", "2 GMACs", "100 kParams", NETWORK],
        ["1", "37.00", "9 GMACs", "400 kParams", NETWORK],
    ]


def test_of_many_generations_the_table_has_some_with_the_first_and_the_last(tmp_path: Path) -> None:
    history = [Generation(i, 64 * i + 64, 0.5, 37.0, (1.0, 1.0)) for i in range(157)]
    rows = Page(written(tmp_path, history=history)).rows
    shown = [int(row[0]) for row in rows[1 : rows.index(next(row for row in rows if row[0] == "point"))]]
    assert (shown[0], shown[-1]) == (0, 156)
    assert shown == sorted(set(shown)) and 5 <= len(shown) <= 12


@pytest.mark.parametrize(
    ("candidates", "history"),
    [
        ([], []),
        (CANDIDATES[1:2], HISTORY[:1]),
        (CANDIDATES[:1], []),
        (CANDIDATES[:1] * 5, HISTORY),
        (
            [Point(0, float("nan"), (0.0, 0.0), None, False, True, "")],
            [Generation(0, 1, 0.0, float("-inf"), (0.0, 0.0))],
        ),
    ],
    ids=["empty", "no front", "one", "equal", "free and not a number"],
)
def test_little_or_odd_is_shown_too(candidates: list[Point], history: list[Generation], tmp_path: Path) -> None:
    page = Page(written(tmp_path, candidates, history))
    assert len(page.figures) == (3 if candidates else 0) + bool(history)
    assert page.texts["h1"] == ["Search of runs/mine"]
    assert ("Nothing is on the front." in page.texts["p"]) == all(point.front is None for point in candidates)


def test_nothing_is_fetched_and_text_stays_text(tmp_path: Path) -> None:
    objective = Objective(HOSTILE, HOSTILE, HOSTILE)
    candidates = [Point(0, 37.0, (1.0,), 0, True, False, HOSTILE)]
    page = Page(written(tmp_path, candidates, [], [objective], "<script>alert(1)</script>", [HOSTILE]))
    assert page.texts["title"] == page.texts["h1"] == ["<script>alert(1)</script>"]
    assert HOSTILE in page.texts["p"] and page.rows[-1][-1] == HOSTILE
    assert [tag for tag, _ in page.tags].count("script") == 4  # The figure, the hover texts, plotly, and what draws.
    assert not any(key in ("src", "href") or key.startswith("on") for _, given in page.tags for key in given)
    assert "link" not in {tag for tag, _ in page.tags}
    policy = next(given["content"] for _, given in page.tags if "http-equiv" in given)
    assert policy is not None and policy.startswith("default-src 'none'")
    assert not re.search(r"https?:|unsafe-(eval|inline)[^;]*;.*script|script-src[^;]*unsafe", policy)
    # Plotly reads tags in these.
    assert "<img" not in page.hover[0] and "<img" not in page.figures[0]["layout"]["xaxis"]["title"]["text"]


def test_ten_thousand_candidates_are_one_file_that_a_phone_can_open(tmp_path: Path) -> None:
    candidates = [
        Point(i // 64, 36 + i % 97 / 50, (1e9 + i * 7e6, 1e5 + i % 89 * 1e4), None, False, i % 4 == 0, NETWORK * 3)
        for i in range(10_000)
    ]
    assert written(tmp_path, candidates).stat().st_size < 12e6


def test_an_earlier_file_stays_where_the_new_one_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "search.html").mkdir()
    with pytest.raises(HwnasError, match="cannot write"):
        written(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["search.html"]


def test_plotly_and_jinja_wait_until_there_is_something_to_draw() -> None:
    code = "import sys, hwnas.reports.search_report; print({'plotly', 'jinja2'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_browser_draws_it_without_complaint(tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if browser is None:
        pytest.skip("there is no Chromium or Chrome here; apt-get install chromium")
    title = f"{HOSTILE} runs/mine"
    path = written(tmp_path, title=title, objectives=(MACS, Objective(HOSTILE, "Params", "")), subtitle=[HOSTILE])
    # Root has no sandbox, and the page is our own.
    options = ["--headless", "--disable-gpu", "--window-size=1200,3000", "--enable-logging=stderr", "--dump-dom"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000"]
    options += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    done = subprocess.run([browser, *options, path.as_uri()], capture_output=True, text=True, timeout=120)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    assert len(re.findall(r'<path class="point\b', done.stdout)) == 3 * len(CANDIDATES) + len(HISTORY)
    assert f"<title>{escape(title, quote=False)}</title>" in done.stdout
    # The title of an axis, which plotly has set as text.
    assert f">{escape(f'{HOSTILE} (Params)', quote=False)}</text>" in done.stdout
