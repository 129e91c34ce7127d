{{ config(alias='churn_causes') }}

with

final as (

    select
        '{{ var("run_id") }}' as run_id,
        {{ as_of_date() }} as as_of_date,
        cast(kept.account_id as text) as account_id,
        cast(kept.month as date) as month,
        cast(kept.tier_before as text) as tier_before,
        cast(kept.churn_kind as text) as churn_kind,
        cast(kept.inactive_since as date) as inactive_since,
        cast(kept.cause as text) as cause,
        cast(kept.told_by as text) as told_by,
        cast(kept.measure as text) as measure,
        cast(kept.value as numeric(18, 4)) as value,
        cast(kept.evidence as text) as evidence
    from {{ ref('churn_causes') }} as kept
    where kept.as_of_date = {{ as_of_date() }}

)

select * from final
