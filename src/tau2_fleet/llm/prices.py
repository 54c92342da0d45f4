"""What calls cost, from the tables in `data/prices/`: USD per million tokens, cached input apart."""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tau2_fleet.errors import UserError
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.llm.types import Usage
from tau2_fleet.paths import DATA_DIR

logger = logging.getLogger(__name__)

_DATE = re.compile(r"-(?:\d{8}|\d{4}-\d{2}-\d{2})$")


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens of one model."""

    input: float = 0.0
    output: float = 0.0
    cached_input: float | None = None
    """None: as other input."""
    cache_write: float | None = None
    """Input that is put into the provider's prompt cache; None: as other input."""

    def cost_usd(self, usage: Usage, cache_write_tokens: int = 0) -> float:
        """USD of one call; `cache_write_tokens` is a part of `usage.input_tokens`."""
        cached = self.input if self.cached_input is None else self.cached_input
        written = self.input if self.cache_write is None else self.cache_write
        plain = usage.input_tokens - usage.cached_tokens - cache_write_tokens
        return (
            max(0, plain) * self.input
            + usage.cached_tokens * cached
            + cache_write_tokens * written
            + usage.output_tokens * self.output
        ) / 1e6


FREE = Price()


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices by the model names that providers use."""

    prices: dict[str, Price] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> PriceTable:
        """All `*.yaml` of the folder, each a mapping `models:` of name to input, output, cached_input, cache_write.

        Raises:
            UserError: a file has another form, or a price is not a number from 0.
        """
        prices: dict[str, Price] = {}
        for path in sorted(folder.glob("*.yaml")):
            try:
                models = yaml.safe_load(path.read_text(encoding="utf-8"))["models"]
                prices |= {str(name): _price(entry) for name, entry in models.items()}
            except (AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
                raise UserError(f"{path}: not a price table: {error!r} (see the other files in {folder})") from error
        return cls(prices)

    @classmethod
    def shipped(cls) -> PriceTable:
        """The tables in `data/prices/`."""
        return cls.load(DATA_DIR / "prices")

    def find(self, model: str) -> Price | None:
        """The price of a model by its name, its name without the provider's prefix or without its date."""
        bare = model.rpartition("/")[2]
        for name in (model, _DATE.sub("", model), bare, _DATE.sub("", bare)):
            if name in self.prices:
                return self.prices[name]
        return None

    def price_of(self, settings: ModelSettings) -> Price:
        """What this model costs: its own `price`, nothing on a fleet, else the table's; unknown ones count as free."""
        if settings.price is not None or settings.provider.is_pool:
            return own_price(settings)
        price = self.find(settings.model or "")
        if price is None:
            logger.warning(
                "no price is known for %s: its calls count as 0 USD (add it to data/prices/ or set its price key)",
                settings.model,
            )
        return price or FREE


def own_price(settings: ModelSettings) -> Price:
    """The price in the settings themselves; nothing when there is none."""
    price = settings.price
    return FREE if price is None else Price(price.input, price.output, price.cached_input)


def _price(entry: dict[str, Any]) -> Price:
    numbers = {key: float(value) for key, value in entry.items() if value is not None}
    if not all(math.isfinite(number) and number >= 0 for number in numbers.values()):
        raise ValueError(f"prices are numbers from 0, not {entry}")
    return Price(**numbers)
