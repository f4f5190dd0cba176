"""Fit the prices of dirnet_convert/convert/cost.py to layers.json: `python docs/results/layers/fit.py`.

Prints both tables of prices in nanoseconds, to be copied into cost.py, and how well two kinds of prices
predict each layer: those of cost.py as it is, and such as were fitted without the layer in question. That
goes to fit.json, too. Prices are not negative and make the sum of the squared relative errors least.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from dirnet_convert.convert.cost import ConvWork, binary_work, expected_speed, float_work
from dirnet_convert.files import write_atomic

HERE = Path(__file__).parent
SWEEPS = 4_000


def conv_work(row: dict) -> ConvWork:
    """Return the work of a row of layers.json."""
    _, channels, height, width = row["input"]
    spans = (height + row["pads"][0] + row["pads"][2], width + row["pads"][1] + row["pads"][3])
    sizes = [
        (span - dilation * (kernel - 1) - 1) // stride + 1
        for span, dilation, kernel, stride in zip(
            spans, row["dilations"], row["kernel"], row["strides"], strict=True
        )
    ]
    return ConvWork(
        channels=channels,
        outputs=row["out_channels"],
        groups=row["group"],
        taps=row["kernel"][0] * row["kernel"][1],
        input_positions=height * width,
        positions=sizes[0] * sizes[1],
    )


def binary_us(row: dict) -> float:
    """Return the measured time of the binary form, its Binarize included."""
    return row["binarize_us"] + row["conv_us"]


def fit(works: list[dict[str, float]], microseconds: list[float]) -> dict[str, float]:
    """Return the price of each kind of work in nanoseconds."""
    kinds = list(dict.fromkeys(kind for work in works for kind in work))
    amounts = np.array([[work.get(kind, 0.0) for kind in kinds] for work in works])
    # Every row divided by what was measured: the target is 1 throughout, the errors are relative.
    matrix = amounts / (1e3 * np.array(microseconds)[:, None])
    scale = np.linalg.norm(matrix, axis=0)
    matrix /= scale
    prices = np.zeros(len(kinds))
    rest = np.ones(len(matrix))
    for _ in range(SWEEPS):
        for k in range(len(kinds)):
            change = max(-prices[k], matrix[:, k] @ rest)
            prices[k] += change
            rest -= change * matrix[:, k]
    return {kind: float(price) for kind, price in zip(kinds, prices / scale, strict=True)}


def show(name: str, prices: dict[str, float]) -> None:
    print(f"{name}: dict[str, float] = {{")
    for kind, price in prices.items():
        print(f'    "{kind}": {price:.4g},')
    print("}")


def without_one(works: list[dict[str, float]], microseconds: list[float]) -> list[float]:
    """Return what each layer is expected to take, in microseconds, by prices fitted to all the others.

    The only layer with a kind of work has none; NaN stands for it.
    """
    expected = []
    for i, work in enumerate(works):
        prices = fit(works[:i] + works[i + 1 :], microseconds[:i] + microseconds[i + 1 :])
        expected.append(sum(amount * prices.get(kind, float("nan")) for kind, amount in work.items()) / 1e3)
    return expected


def main() -> None:
    measured = json.loads((HERE / "layers.json").read_text())
    rows = measured["layers"]
    conv_works = [conv_work(row) for row in rows]
    times = {
        "FLOAT_PRICES": ([float_work(work) for work in conv_works], [row["fp32_us"] for row in rows]),
        "BINARY_PRICES": ([binary_work(work) for work in conv_works], [binary_us(row) for row in rows]),
    }
    for name, (works, microseconds) in times.items():
        show(name, fit(works, microseconds))
    plain, binary = (without_one(*pair) for pair in times.values())
    table = [
        {
            "name": row["name"],
            "measured_speed": row["fp32_us"] / binary_us(row),
            "expected_speed": expected_speed(work),
            "expected_speed_by_the_others": plain_us / other_us,
        }
        for row, work, plain_us, other_us in zip(rows, conv_works, plain, binary, strict=True)
    ]
    result = {"date": measured["date"], "layers": len(table)}
    for column in ("expected_speed", "expected_speed_by_the_others"):
        off = np.abs(np.log([row[column] / row["measured_speed"] for row in table]))
        result[column] = {
            "median_factor_off": float(np.exp(np.median(off))),
            "worst_factor_off": float(np.exp(np.max(off))),
            "on_the_wrong_side_of_1": [
                row["name"] for row in table if (row[column] < 1) != (row["measured_speed"] < 1)
            ],
        }
    for row in table:
        print(
            f"{row['name']:24} measured {row['measured_speed']:6.2f}x, expected {row['expected_speed']:6.2f}x"
        )
    print(json.dumps(result, indent=1))
    write_atomic(HERE / "fit.json", json.dumps({**result, "rows": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
