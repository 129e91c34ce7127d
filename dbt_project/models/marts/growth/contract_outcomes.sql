{{ config(indexes=[{'columns': ['as_of_date', 'contract_id'], 'unique': true}]) }}

-- depends_on: {{ ref('kpi_dates') }}

with

growth_dates as (

    select * from {{ ref('growth_dates') }}

),

contracts as (

    select
        growth_dates.as_of_date,
        growth_dates.signing_month,
        growth_dates.signing_window_days,
        growth_dates.renewal_month,
        growth_dates.renewal_grace_days,
        account_keys.account_id,
        contracts.contract_id,
        contracts.renews_contract_id,
        contracts.contract_value,
        contracts.currency,
        contracts.sent_at,
        contracts.signed_at,
        {{ local_date('contracts.sent_at') }} as sent_date,
        {{ local_date('contracts.signed_at') }} as signed_date,
        contracts.starts_on,
        contracts.ends_on
    from growth_dates
    inner join {{ ref('stg_contracts') }} as contracts on {{ stands_on('contracts', 'growth_dates.as_of_date') }}
    inner join {{ ref('growth_account_keys') }} as account_keys
        on
            contracts.account_key = account_keys.account_key
            and growth_dates.as_of_date = account_keys.as_of_date

),

known as (

    select
        *,
        case when signed_date <= as_of_date then signed_date end as signed_by_date,
        {{ month_start('sent_date') }} as month_sent,
        {{ month_start('ends_on') }} as month_ends
    from contracts

),

-- A successor says so itself, or is another contract of the account that begins around the end of this one and outlasts
-- it; it counts once it is signed.
renewals as (

    select
        known.as_of_date,
        known.contract_id,
        min(successors.signed_by_date) as renewed_on
    from known
    inner join known as successors
        on
            known.as_of_date = successors.as_of_date
            and known.account_id = successors.account_id
            and known.contract_id <> successors.contract_id
    where
        known.month_ends = known.renewal_month
        and successors.signed_by_date <= {{ days_before('known.ends_on', '-known.renewal_grace_days') }}
        and (
            successors.renews_contract_id = known.contract_id
            or (
                successors.ends_on > known.ends_on
                and successors.starts_on >= {{ days_before('known.ends_on', 'known.renewal_grace_days') }}
                and successors.starts_on <= {{ days_before('known.ends_on', '-known.renewal_grace_days') }}
            )
        )
    group by known.as_of_date, known.contract_id

),

final as (

    select
        known.as_of_date,
        known.contract_id,
        known.account_id,
        account_tiers.tier as tier_before,
        known.sent_date,
        known.signed_by_date as signed_date,
        known.starts_on,
        known.ends_on,
        case when known.month_sent = known.signing_month then 1 else 0 end as is_of_signing_month,
        case
            when
                known.month_sent = known.signing_month
                and known.signed_by_date <= {{ days_before('known.sent_date', '-known.signing_window_days') }}
                then {{ hours_between('known.sent_at', 'known.signed_at') }}
        end as hours_to_sign,
        case when known.sent_date <= known.as_of_date and known.signed_by_date is null then 1 else 0 end as is_waiting,
        case when known.month_ends = known.renewal_month and known.signed_by_date is not null then 1 else 0 end
            as is_of_renewal_month,
        case when renewals.contract_id is not null then 1 else 0 end as is_renewed,
        renewals.renewed_on
    from known
    left join renewals on known.as_of_date = renewals.as_of_date and known.contract_id = renewals.contract_id
    left join {{ ref('account_tiers') }} as account_tiers
        on
            {{ days_before(
                'case when known.month_ends = known.renewal_month then known.month_ends else known.month_sent end', 1
            ) }} = account_tiers.as_of_date
            and known.account_id = account_tiers.account_id
    where
        known.month_sent = known.signing_month
        or (known.month_ends = known.renewal_month and known.signed_by_date is not null)
        or (known.sent_date <= known.as_of_date and known.signed_by_date is null)

)

select * from final
