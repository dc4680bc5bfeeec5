"""Takes the picture of the report that README.md shows: ``make picture``, after ``make demo``.

python tests/report/picture.py [REPORT] [PNG]
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

REPORT, PICTURE = "demo/predictions/report/videos/video13.html", "docs/report.png"
WIDTH_PX, COLORS = 1000, 192
AT_S = 11.2
"""Second of the video that the picture shows."""


def take(report: Path, picture: Path) -> None:
    """Writes the upper part of a video's page, down to the end of its chart, as a PNG.

    Args:
        report: the page.
        picture: the PNG; its folder exists.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH_PX, "height": 2000})
        page.goto(report.resolve().as_uri())
        page.evaluate(
            """async second => {
                const film = document.querySelector("video");
                film.controls = false;
                await new Promise(done => { film.onseeked = done; film.currentTime = second; });
            }""",
            AT_S,
        )
        page.wait_for_timeout(500)
        end = page.evaluate("document.querySelector('#timeline').getBoundingClientRect().bottom")
        shot = page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH_PX, "height": end + 16})
        browser.close()
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLORS).save(picture, optimize=True)


if __name__ == "__main__":
    given = [*sys.argv[1:], *(REPORT, PICTURE)[len(sys.argv) - 1 :]]
    take(Path(given[0]), Path(given[1]))
