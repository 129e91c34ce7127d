"""The fields a target must have before it can be told: which are missing, and making them."""

from include.errors import StratumError
from include.sync.asking import asking
from include.sync.target import Setup, Target


def set_up(target: Target, kinds: dict[str, str]) -> Setup:
    """Make the fields (name → string, number, date, moment or bool) that are missing, where the API allows.

    Raises StratumError or TransientError where the target does not tell which it has, or does not let them be made.
    """
    return _asked(target, kinds, make=True)


def lacking_fields(target: Target, kinds: dict[str, str]) -> list[str]:
    """Return the fields the target lacks. Raises as `set_up` does."""
    return list(_asked(target, kinds, make=False).by_hand)


def check_fields(target: Target, kinds: dict[str, str], make: bool, key: str | None = None) -> None:
    """Raise StratumError where the target lacks fields, or cannot be told one, after making what can be made if `make`.

    `key` is the field by which records are made: it may be there, and be none that is unique.
    """
    done = _asked(target, kinds, make)
    lacking = done.by_hand
    if key in lacking:
        raise StratumError(
            f"{target.name} cannot make records by {key}: {lacking[key]}. Let `stratum sync setup` make what can be made. "
            "Nothing was sent."
        )
    if lacking:
        raise StratumError(
            f"{target.name} has no field {', '.join(lacking)}. Let `stratum sync setup` make what can be made, "
            "or take it out of the fields in sync.yml. Nothing was sent."
        )
    if done.unfit:
        faults = "; ".join(f"{name}: {why}" for name, why in done.unfit.items())
        raise StratumError(f"{target.name} cannot be told {faults}. Nothing was sent.")


def _asked(target: Target, kinds: dict[str, str], make: bool) -> Setup:
    with asking(target, "which fields it has", "Nothing was sent."):
        return target.setup(kinds, make)
