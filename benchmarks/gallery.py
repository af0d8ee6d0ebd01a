"""The README's pictures, made by real runs: the default run, and the README's own pair of models.

Writes reports/gallery; needs every framework, playwright and chromium.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import click

import harness
from harness.cases import DEFAULT_CASES

GALLERY = Path(__file__).parent.parent / "reports" / "gallery"
SHOTS = {
    "run": ("default", 1100, ["header", "#same"]),
    "training": ("default", 1280, ["#training .figures >> nth=0", "h3:has-text('How far apart') + p + .figures"]),
    "port": ("port", 1000, ["header", "#where > .strip", "#why"]),
}
"""Picture -> page, width of the window, and which parts of it, one below the other."""


@click.command()
@click.option("--out", default=GALLERY, type=click.Path(path_type=Path), show_default=True)
def main(out: Path) -> None:
    """Make the pictures and keep the page of the pair of models beside them."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        cases = [harness.CASES[name] for name in DEFAULT_CASES]
        _ = harness.investigate(*cases, out=Path(scratch, "default"), command="gradparity run")
        _ = port().save(Path(scratch, "port"))
        _ = shutil.copy(Path(scratch, "port", "report.html"), out / "port.html")
        take_pictures(Path(scratch), out)


def port() -> harness.Comparison:
    """The README's CNN and its Keras port, whose dense kernel was copied as if images were flattened alike."""
    import keras
    import torch
    from sklearn.datasets import load_digits
    from torch import nn

    _ = torch.manual_seed(0)
    digits: Any = load_digits()
    images, labels = digits.images[:256, None].astype("float32") / 16, digits.target[:256]
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 10))
    layers: Any = keras.layers
    convolution, dense = layers.Conv2D(8, 3, activation="relu"), layers.Dense(10)
    model: Any = keras.Sequential([keras.Input((8, 8, 1)), convolution, layers.MaxPooling2D(), layers.Flatten(), dense])
    conv_weight, conv_bias, dense_weight, dense_bias = (p.detach().numpy() for p in net.parameters())
    convolution.set_weights([conv_weight.transpose(2, 3, 1, 0), conv_bias])
    dense.set_weights([dense_weight.T, dense_bias])
    model.compile(keras.optimizers.SGD(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    side = harness.side(net, loss=nn.CrossEntropyLoss(), optimizer=torch.optim.SGD(net.parameters(), 0.05))
    return harness.compare(side, model, (images, images.transpose(0, 2, 3, 1)), labels, steps=5, batch_size=16)


def take_pictures(pages: Path, out: Path) -> None:
    """Each picture in light and dark: all but the chosen parts of the page are taken away."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (page, width, parts) in SHOTS.items():
            for scheme in ("light", "dark"):
                tab = browser.new_page(
                    viewport={"width": width, "height": 700}, color_scheme=scheme, device_scale_factor=1.25
                )
                _ = tab.goto((pages / page / "report.html").as_uri())
                chosen = [tab.locator(part).first.element_handle() for part in parts]
                tab.evaluate(
                    """chosen => {
                      const main = document.createElement("main");
                      main.append(...chosen);
                      document.body.replaceChildren(main);
                    }""",
                    chosen,
                )
                tab.locator("main").screenshot(path=out / f"{name}-{scheme}.png")
                tab.close()
        browser.close()


if __name__ == "__main__":
    main()
