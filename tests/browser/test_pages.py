"""The report, the page of `serve` and the page of a map, as a browser shows them."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.chromium import PHONE, faults_of_access, overflow, started, tab_to, visit
from tests.commands import Command, run
from tests.test_serve import start
from tests.toy_corpus import PAIRS, options, write_corpus

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.timeout(300)  # the first test waits for five commands
# Were it ever taken for markup, the title of the page would tell.
EVIL = '<img/src=x/onerror=document.title="run"> </script><script>document.title="run"</script>'
SOURCE = PAIRS[0][0]  # 我看见猫。
# Where the points are, and how many of them a pointer there would meet.
_HIT = """dots => {
  const at = dots.map(dot => dot.getBoundingClientRect()).map(box => [box.x + box.width / 2, box.y + box.height / 2]);
  return { at, hit: dots.filter((dot, number) => document.elementFromPoint(...at[number]) === dot).length };
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with started() as browser:
        yield browser


@pytest.fixture(scope="module")
def toy_run(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of twenty steps whose first sentence has HTML in it."""
    folder = tmp_path_factory.mktemp("toy")
    corpus = write_corpus(folder)
    corpus.write_text(f"{EVIL}\t{EVIL}\n{corpus.read_text(encoding='utf-8')}", encoding="utf-8")
    run_dir = folder / "<b>run"
    values = options(corpus, run_dir, data__target_tokenizer="whitespace", training__record_vectors_every=10)
    run("dist_s2s.train", *values)
    return run_dir


@pytest.fixture(scope="module")
def addresses(toy_run: Path) -> Iterator[dict[str, str]]:
    """Where each page is to be had."""
    map_page = toy_run / "map.html"
    report = Command("dist_s2s.report", "--run", toy_run)
    plot = Command("dist_s2s.embeddings", "--run", toy_run, "--side", "target", "plot", "--output", map_page)
    command, port = start(toy_run, ranks=1)
    report.wait()
    plot.wait()
    yield {
        "report": (toy_run / "report.html").as_uri(),
        "map": map_page.as_uri(),
        "serve": f"http://127.0.0.1:{port}/",
    }
    command.signal(15)
    command.wait()


def words_of(parts: "Locator") -> list[str]:
    return parts.all_text_contents()


def translate(page: "Page", text: str) -> None:
    page.get_by_label("Sentence").fill(text)
    page.get_by_role("button", name="Translate").click()
    page.locator("#translations .source", has_text=text).wait_for()


def fill_page(page: "Page") -> None:
    """Bring a page into the state in which most of it is to be seen."""
    if page.locator("#translations").count():
        translate(page, SOURCE)
        page.locator("#weights th[scope=row] button").first.click()
        page.locator("#found li").first.wait_for()
        return
    # One of each kind, since axe-core takes its time for each cell: the table of a chart, attention, a long table.
    for place in ("figure details", "article details", ".blocks > details"):
        for summary in page.locator(place).locator("summary").all()[:1]:
            summary.click()
    for search in page.get_by_label("Find a word").all():
        search.fill("a")


@pytest.mark.parametrize(("kind", "side"), [("report", 0), ("report", 1), ("map", 0)])
def test_a_map_draws_and_answers(browser: "Browser", addresses: dict[str, str], kind: str, side: int) -> None:
    with visit(browser, addresses[kind]) as page:
        maps = page.locator(".word-map")
        assert maps.count() == {"report": 2, "map": 1}[kind]
        of_map = maps.nth(side)
        of_map.scroll_into_view_if_needed()
        dots, labels = of_map.locator("circle"), of_map.locator("text")
        places = dots.evaluate_all(_HIT)
        assert len(set(map(tuple, places["at"]))) > 0.9 * len(places["at"]) > 10
        assert places["hit"] > 0.9 * len(places["at"])  # the others lie under one of these
        assert labels.filter(visible=True).count() > 10
        dots.last.click()  # the most frequent word, which lies above the others
        word = dots.last.text_content()
        answer = of_map.get_by_role("status")
        assert (answer.text_content() or "").startswith(f"{word}, closest here by cosine: ")
        neighbours = answer.get_by_role("button")
        assert sorted(words_of(of_map.locator(".found text"))) == sorted([word, *words_of(neighbours)])
        assert neighbours.count() == 10


@pytest.mark.parametrize("kind", ["report", "map"])
def test_a_map_is_searched_by_keyboard_alone(browser: "Browser", addresses: dict[str, str], kind: str) -> None:
    with visit(browser, addresses[kind]) as page:
        if kind == "report":
            tab_to(page, "nav a[href='#words']")
            page.keyboard.press("Enter")
        tab_to(page, ".word-map input")
        of_map = page.locator(".word-map").first
        answer, wanted = of_map.get_by_role("status"), "猫" if kind == "report" else "cat"
        page.keyboard.type(wanted)
        assert (answer.text_content() or "").startswith(f"{wanted}, closest here by cosine: ")
        for _ in range(2):  # from neighbour to neighbour
            tab_to(page, ".answer button + button")
            word = page.evaluate("document.activeElement.textContent")
            page.keyboard.press("Enter")
            assert (answer.text_content() or "").startswith(f"{word}, closest here by cosine: ")
            assert page.evaluate("document.activeElement.matches('.answer button:first-of-type')")
        page.keyboard.press("Shift+Tab")  # whole map
        page.keyboard.press("Enter")
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Shift+Tab")
        before = of_map.locator("circle").last.get_attribute("cx")
        page.keyboard.press("Enter")
        assert of_map.locator("circle").last.get_attribute("cx") != before


def test_the_report_shows_texts_as_they_are(browser: "Browser", addresses: dict[str, str]) -> None:
    with visit(browser, addresses["report"]) as page:
        title = page.title()
        assert title.startswith("<b>run")
        fill_page(page)
        heat = page.get_by_role("region", name="Cosines of source words")
        labels = words_of(heat.locator("th[scope=col]"))
        assert set("看见喜欢") < set(labels)
        assert labels == words_of(heat.locator("th[scope=row]"))
        assert {*"安娜喜欢月亮"} & {*words_of(page.locator("#samples .heat th[scope=col]"))}
        assert page.locator("#samples dd", has_text=EVIL).count() == 2  # source and reference
        search = page.get_by_label("Find a word").last
        search.fill("<script>")
        assert page.locator(".found title", has_text="<script>").count() == 1
        assert page.locator("img, b").count() == 0
        assert page.title() == title


def test_a_sentence_is_served(browser: "Browser", addresses: dict[str, str]) -> None:
    with visit(browser, addresses["serve"]) as page:
        page.locator("#about", has_text="run <b>run, one process").wait_for()
        translate(page, SOURCE)
        assert page.locator("#translations .best").count() == 1
        assert page.get_by_role("list", name="best translations").locator("li").count() == 3
        columns = page.locator("#weights th[scope=col]")
        assert words_of(columns)[: len(SOURCE)] == list(SOURCE)
        columns.get_by_role("button", name="猫").click()
        found = page.get_by_role("list", name="words closest to 猫").locator("li")
        found.first.wait_for()
        assert found.count() == 10
        assert page.get_by_label("Word", exact=True).input_value() == "猫"
        translate(page, EVIL)
        assert page.locator("#translations .source").text_content() == EVIL
        assert page.locator("img, b").count() == 0
        assert page.title() == "dist-s2s"


def test_errors_of_the_service_are_told(browser: "Browser", addresses: dict[str, str]) -> None:
    refused = "Failed to load resource: the server responded with a status of "  # by Chromium itself
    with visit(browser, addresses["serve"], accepted=refused) as page:
        page.get_by_label("Sentence").fill("猫" * 1001)
        page.get_by_role("button", name="Translate").click()
        said = "sentence 1 has 1,001 characters; at most 1,000 are allowed"
        page.locator("#translate-error", has_text=said).wait_for()
        page.get_by_label("Word", exact=True).fill("<b>katze</b>")
        page.get_by_role("button", name="Look up").click()
        page.locator("#neighbours-error", has_text="<b>katze</b>").wait_for()
        assert page.get_by_role("alert").locator("b").count() == 0
        translate(page, SOURCE)
        assert page.locator("#translate-error").text_content() == ""


def test_the_service_is_used_by_keyboard_alone(browser: "Browser", addresses: dict[str, str]) -> None:
    with visit(browser, addresses["serve"]) as page:
        tab_to(page, "#text")
        page.keyboard.type(SOURCE)
        tab_to(page, "button[type=submit]")
        page.keyboard.press("Enter")
        page.locator("#translations .best").wait_for()
        assert page.evaluate("document.activeElement.matches('#translate button[type=submit]')")
        tab_to(page, "#weights button")
        for _ in range(2):  # and from neighbour to neighbour
            word = page.evaluate("document.activeElement.textContent")
            page.keyboard.press("Enter")
            page.get_by_role("list", name=f"words closest to {word}").wait_for()
            tab_to(page, "#found button")


@pytest.mark.parametrize("kind", ["report", "map", "serve"])
def test_a_page_is_accessible(browser: "Browser", addresses: dict[str, str], kind: str) -> None:
    with visit(browser, addresses[kind]) as page:
        fill_page(page)
        assert overflow(page) == 0
        assert faults_of_access(page) == []


@pytest.mark.parametrize("kind", ["report", "map", "serve"])
def test_a_page_is_accessible_in_the_dark_on_a_phone(browser: "Browser", addresses: dict[str, str], kind: str) -> None:
    with visit(browser, addresses[kind], width=PHONE, scheme="dark") as page:
        fill_page(page)
        assert overflow(page) == 0
        assert faults_of_access(page, "color-contrast") == []  # all else is the same as in the light
