"""Every setting of Stratum, read from the environment (`STRATUM_*`) by one class."""

from functools import lru_cache
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

PROJECT_DIR = Path(__file__).resolve().parent.parent
SIMULATED_SOURCES = PROJECT_DIR / "include" / "simulate" / "sources.yml"
SOURCES_VARIABLE = "stratum_sources"
"""The Airflow variable that names the sources.yml of the last `stratum run --sources` or `stratum up`."""


class Settings(BaseSettings):
    """Settings of one Stratum installation; each field is the variable `STRATUM_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="STRATUM_", extra="ignore")

    home: Path = Field(PROJECT_DIR / ".stratum", description="Where all state lives.")
    sources: Path = Field(
        SIMULATED_SOURCES,
        description="The sources.yml to read; the built-in simulated company if unset.",
    )
    postgres_bin: Path | None = Field(
        None, description="Folder of the PostgreSQL server programs; those of the wheel if unset."
    )
    postgres_port: int = Field(54329, description="Loopback port of the embedded PostgreSQL.")
    warehouse_url: str | None = Field(
        None, description="postgresql:// URL of the owner on your own server, instead of the embedded one."
    )
    postgres_url: str | None = Field(
        None,
        description="postgresql:// URL of a login that may create databases and roles on your own server; the "
        "warehouse's and Airflow's databases are made there, instead of in the embedded one.",
    )
    airflow_url: str | None = Field(
        None,
        description="URL of an Airflow whose parts others run, as docker-compose.yml does: the command line "
        "then starts nothing and talks to it.",
    )
    broker_url: str | None = Field(
        None,
        description="redis:// URL of the broker; tasks then run on Celery workers, else beside the scheduler.",
    )
    listen: str = Field(
        "127.0.0.1",
        description="Address on which Airflow's API server and the CRM sandbox listen; 0.0.0.0 only in a "
        "container whose ports are published on loopback.",
    )
    airflow_port: int = Field(8793, description="Loopback port of Airflow's API server and UI.")
    sandbox_host: str = Field("127.0.0.1", description="Where the CRM sandbox is reached.")
    sandbox_port: int = Field(8794, description="Loopback port of the CRM sandbox.")
    schedule: bool = Field(False, description="Run the ingests on their daily schedule.")
    ingest_cron: str = Field("0 5 * * *", description="When the ingests run, in the company's time zone.")
    housekeeping_cron: str = Field(
        "0 7 * * *", description="When housekeeping runs, in the company's time zone: after the ingests."
    )
    reconcile_cron: str = Field(
        "0 8 * * *",
        description="When the CRMs are read back, in the company's time zone: after the newest sync.",
    )
    timezone: str = Field("UTC", description="Company time zone where sources.yml states none.")
    currency: str = Field("CNY", description="Reporting currency where sources.yml states none.")

    @property
    def data_docs(self) -> Path:
        """Folder of the Great Expectations documents, readable by a browser."""
        return self.home.resolve() / "data_docs"

    @property
    def model_cards(self) -> Path:
        """Folder of the model cards, a page and its plots for each fitted model."""
        return self.home.resolve() / "model_cards"


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return the settings, read once per process; `get_settings.cache_clear()` reads them anew."""
    settings = Settings()
    settings.home = settings.home.expanduser().resolve()
    return settings
