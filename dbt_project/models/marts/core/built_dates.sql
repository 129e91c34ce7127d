{{
    config(
        full_refresh=false,
        indexes=[{'columns': ['as_of_date'], 'unique': true}],
        pre_hook="{{ remove_kpi_dates() }}",
    )
}}

{#- Last of all: what a failed build has left half made is due again. -#}
-- depends_on: {{ ref('account_tiers') }}
-- depends_on: {{ ref('account_segments') }}
-- depends_on: {{ ref('account_content_tags') }}
-- depends_on: {{ ref('account_memberships') }}
-- depends_on: {{ ref('account_lifecycle') }}
-- depends_on: {{ ref('kpis') }}
-- depends_on: {{ ref('retention_cohorts') }}
-- depends_on: {{ ref('account_relationships') }}
-- depends_on: {{ ref('account_journeys') }}
-- depends_on: {{ ref('account_kinds') }}
-- depends_on: {{ ref('account_care') }}
-- depends_on: {{ ref('account_warnings') }}
-- depends_on: {{ ref('account_tier_history') }}
-- depends_on: {{ ref('account_tier_movements') }}
-- depends_on: {{ ref('tier_migrations') }}
-- depends_on: {{ ref('experiment_readouts') }}
-- depends_on: {{ ref('purchase_paths') }}
-- depends_on: {{ ref('trial_features') }}
-- depends_on: {{ ref('lapse_features') }}

with

final as (

    select
        as_of_date,
        true as kpis_stand,
        '{{ var("kpi_definition") }}' as kpi_definition,
        '{{ var("run_id") }}' as run_id
    from {{ ref('kpi_dates') }}

)

select * from final
