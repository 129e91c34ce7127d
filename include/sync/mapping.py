"""The mapping of results to a CRM, one per target: what sync.yml may say."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from include.sources.row_sources import Section

SYSTEMS = ("hubspot", "salesforce", "bottlecrm", "webhook")
# The object type that holds the accounts, where the mapping names none.
OBJECTS = {"hubspot": "companies", "salesforce": "Account", "bottlecrm": "accounts", "webhook": "accounts"}

# https://developers.hubspot.com/docs/api-reference/crm-companies-v3/guide: at least one of the two.
NEEDED_AT_CREATION = {("hubspot", "companies"): ("name", "domain"), ("salesforce", "Account"): ("Name",)}
"""System and object type → fields of which a new record needs one."""


class FieldRule(Section):
    """One field of the CRM: the column of published.customer_360 it is told, and by which rules."""

    column: str = Field(min_length=1)
    when_null: Literal["keep", "clear"] = "keep"
    """What a null, or an empty text, does to the value that we wrote; another's is never cleared."""
    overwrite: Literal["always", "if_empty", "if_ours"] = "always"
    """Whose value may be overwritten: anybody's, nobody's (the field is empty), or only the one we wrote last.

    A field we never told is ours while it is empty.
    """

    @model_validator(mode="after")
    def _clears_what_it_may(self) -> "FieldRule":
        if self.when_null == "clear" and self.overwrite == "if_empty":
            raise ValueError(
                "when_null: clear needs overwrite: if_ours or always: an empty field needs no clearing"
            )
        return self


class Brakes(Section):
    """When a sync is held until a person approves it. Shares are of 1; null switches a brake off."""

    first_sync: bool = True
    """Hold the first sync to a target."""
    max_shrink: float | None = Field(0.2, ge=0, le=1)
    """Accounts that the source has fewer of than at the last sync."""
    max_tier_changes: float | None = Field(0.3, ge=0, le=1)
    """Accounts told before whose `tier_column` changes."""
    max_score_moves: float | None = Field(0.5, ge=0, le=1)
    """Accounts told before whose `score_column` moves by more than `score_step`."""
    max_removals: float | None = Field(0.2, ge=0, le=1)
    """Records told before of which fields would be cleared."""
    max_removals_count: int | None = Field(1000, ge=0)
    """The same as a number: a small share of many is many."""
    tier_column: str = "tier"
    score_column: str = "churn_probability"
    score_step: float = Field(0.1, gt=0)
    max_creations: int | None = Field(50, ge=0)
    """Records that one sync would make, where `create` is true."""
    expire_hours: float = Field(24, gt=0)
    """Hours after which a hold that nobody answered is refused."""


class Reconcile(Section):
    """How often and by what policy it is read back whether the CRM still holds what it confirmed."""

    sample: int | None = Field(None, gt=0)
    """Records read back by `reconcile`; null reads all."""
    policy: Literal["report", "heal"] = "report"
    """heal tells the CRM again; report leaves what somebody wrote there and lists it."""
    on_drift: Literal["warn", "fail"] = "warn"
    """What the scheduled task does where something drifted that is not healed."""


class SyncMapping(Section):
    """One target: which system, which object, which fields, by which rules."""

    system: Literal["hubspot", "salesforce", "bottlecrm", "webhook"]
    connection: str = Field(min_length=1)
    object: str = Field(min_length=1)
    fields: dict[str, FieldRule] = Field(min_length=1)
    """Field of the CRM → its rule; `field: column` is short for a rule of defaults."""
    make_fields: bool = False
    """Let a sync make the fields it lacks, where the API allows; else only `stratum sync setup` does."""
    create: bool = False
    """Make the record of an account the CRM does not have, by `external_key`; else it is held as not_in_crm."""
    external_key: str | None = Field(None, min_length=1)
    """The CRM's field that holds the account's id in the records we make, and that is unique there."""
    create_fields: dict[str, str] = Field(default_factory=dict)
    """Field of the CRM → column: told when a record is made and never again; each must have a value for that."""
    consent: str | None = None
    """A boolean column: accounts of which it is not true are held as no_consent."""
    removal: Literal["keep", "clear"] = "keep"
    """What becomes of the fields we wrote where an account is merged, deleted, or withdraws its consent."""
    brakes: Brakes = Brakes()
    reconcile: Reconcile | None = None
    """Read back on a schedule; absent or `off` it is only done by command, by the defaults."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_system(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("system") not in SYSTEMS:
            return given
        system = given["system"]
        return {"connection": f"{system}_default", "object": OBJECTS[system]} | given

    @field_validator("reconcile", mode="before")
    @classmethod
    def _off_is_none(cls, given: Any) -> Any:
        return None if given is False or given == "off" else given  # YAML reads a bare off as false

    @field_validator("fields", mode="before")
    @classmethod
    def _short_rules(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {name: {"column": rule} if isinstance(rule, str) else rule for name, rule in given.items()}

    @model_validator(mode="after")
    def _makes_records_that_it_finds_again(self) -> "SyncMapping":
        if not self.create:
            if self.external_key or self.create_fields:
                raise ValueError(
                    "external_key and create_fields are of create: true: leave them out, or set it"
                )
            return self
        if self.system == "bottlecrm":
            raise ValueError(
                "create: true is not possible with bottlecrm: its API makes accounts by no unique key, so that a try "
                "whose answer is lost could make a second one. Make them there by hand, or tell a webhook that does"
            )
        if self.system == "webhook":
            if self.external_key or self.create_fields:
                raise ValueError(
                    "a webhook's rows bear their account_id, and all fields: leave external_key and create_fields out"
                )
            return self
        if self.external_key is None:
            raise ValueError(
                "create: true needs external_key, the CRM's field that is unique there and holds the account's id: "
                "without one a second try could make a second record"
            )
        if doubled := sorted({self.external_key, *self.create_fields} & self.fields.keys()):
            raise ValueError(f"{doubled[0]} is among fields, which are told again: name it once")
        if self.external_key in self.create_fields:
            raise ValueError(f"{self.external_key} is the external_key: take it out of create_fields")
        told = {*self.fields, *self.create_fields}
        needed = NEEDED_AT_CREATION.get((self.system, self.object), ())
        if needed and told.isdisjoint(needed):
            raise ValueError(
                f"a record of {self.object} cannot be made without {' or '.join(needed)}: say in create_fields which "
                "column it is told"
            )
        return self

    @model_validator(mode="after")
    def _tells_an_object_it_can(self) -> "SyncMapping":
        if self.system in ("hubspot", "bottlecrm") and self.object != OBJECTS[self.system]:
            raise ValueError(
                f"object {self.object} of {self.system} cannot be told, only {OBJECTS[self.system]}: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _reads_what_it_respects(self) -> "SyncMapping":
        guarded = [name for name, rule in self.fields.items() if rule.overwrite != "always"]
        if self.system == "webhook" and guarded:
            raise ValueError(
                f"overwrite of {', '.join(guarded)} depends on what the target holds, and a webhook cannot be read: "
                "leave it at always"
            )
        if self.system == "webhook" and self.reconcile:
            raise ValueError(
                "reconcile reads back what the target holds, and a webhook cannot be read: leave it out"
            )
        return self

    @property
    def target(self) -> str:
        """The name of the target in the books: its system and connection."""
        return f"{self.system}:{self.connection}"

    @property
    def columns(self) -> dict[str, str]:
        """Field of the CRM → column."""
        return {name: rule.column for name, rule in self.fields.items()}

    @property
    def columns_at_creation(self) -> dict[str, str]:
        """Field of the CRM → column, of what only a new record is told: its key, and `create_fields`."""
        key = {self.external_key: "account_id"} if self.external_key else {}
        return key | self.create_fields
