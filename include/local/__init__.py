"""Run Stratum on one machine: PostgreSQL, Airflow and the CRM sandbox as local processes."""
