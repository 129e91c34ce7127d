{{ config(materialized='view') }}

{%- set built_dates = dates_built_before() %}
{%- set window_end = days_before('held.as_of_date', '-horizons.horizon_days') %}

with

horizons as (

    select distinct cast(value as integer) as horizon_days
    from {{ ref('thresholds') }}
    where name = 'lapse_horizon_days'

),

dates_built as (

    -- Not by a reference to built_dates, which stands on all marts.
    select {{ as_of_date() }} as as_of_date
    {% if built_dates %}
    union all
    select built.as_of_date from {{ built_dates }} as built
    {% endif %}

),

newest_dates as (

    select max(as_of_date) as built_until from dates_built

),

held as (

    select
        held.as_of_date,
        held.account_id,
        held.renewal_grace_days,
        horizons.horizon_days,
        {{ window_end }} as window_end
    from {{ ref('lapse_features') }} as held
    cross join horizons

),

crosswalk as (

    select * from {{ ref('int_account_crosswalk') }}
    where source_system <> 'behavior'

),

held_accounts as (

    select distinct
        as_of_date,
        account_id
    from held

),

-- An account counts as what its records are today: one merged since is renewed by the contract of any of them.
keys_today as (

    select distinct
        held_accounts.as_of_date,
        held_accounts.account_id,
        {{ account_key('peers') }} as account_key
    from held_accounts
    inner join crosswalk as members
        on
            held_accounts.account_id = members.account_id
            and {{ holds_on('members', 'held_accounts.as_of_date') }}
    inner join crosswalk as members_today
        on
            members.source_system = members_today.source_system
            and members.source_account_id = members_today.source_account_id
            and members_today.valid_until_date is null
    inner join crosswalk as peers
        on
            members_today.account_id = peers.account_id
            and peers.valid_until_date is null

),

-- As they stood when the window ended: what was written into them later changes no label. An archived one ended with
-- the day it was archived on, or before. A contract holds the account from its signature until its grace is over. The
-- date itself stands as a span of its own, so that nobody is without one.
spans as (

    select
        as_of_date,
        account_id,
        horizon_days,
        window_end,
        as_of_date as holds_from,
        as_of_date as holds_until
    from held
    union all
    select
        held.as_of_date,
        held.account_id,
        held.horizon_days,
        held.window_end,
        {{ local_date('contracts.signed_at') }} as holds_from,
        coalesce(
            {{ days_before(
                'case when contracts.is_archived then least(contracts.ends_on, contracts.valid_from_date) '
                ~ 'else contracts.ends_on end',
                '-held.renewal_grace_days'
            ) }},
            held.window_end
        ) as holds_until
    from held
    inner join keys_today
        on
            held.as_of_date = keys_today.as_of_date
            and held.account_id = keys_today.account_id
    inner join {{ ref('stg_contracts') }} as contracts
        on
            keys_today.account_key = contracts.account_key
            and held.window_end >= contracts.valid_from_date
            and (held.window_end < contracts.valid_until_date or contracts.valid_until_date is null)
            and held.window_end >= {{ local_date('contracts.signed_at') }}

),

-- Of spans in the order of their beginnings one that begins later than the day after all before it leaves a gap.
placed as (

    select
        *,
        max(holds_until) over (
            partition by as_of_date, account_id, horizon_days
            order by greatest(holds_from, as_of_date), holds_until
            rows between unbounded preceding and 1 preceding
        ) as held_before_until
    from spans
    where holds_until >= as_of_date

),

first_gaps as (

    select
        as_of_date,
        account_id,
        horizon_days,
        window_end,
        least(
            min(
                case
                    when holds_from > {{ days_before('held_before_until', -1) }}
                        then {{ days_before('held_before_until', -1) }}
                end
            ),
            case when max(holds_until) < window_end then {{ days_before('max(holds_until)', -1) }} end
        ) as lapsed_on
    from placed
    group by as_of_date, account_id, horizon_days, window_end

),

final as (

    select
        first_gaps.as_of_date,
        first_gaps.account_id,
        first_gaps.horizon_days,
        case when first_gaps.window_end <= newest_dates.built_until then first_gaps.lapsed_on is not null end
            as has_lapsed,
        case when first_gaps.window_end <= newest_dates.built_until then first_gaps.lapsed_on end as lapsed_on
    from first_gaps
    cross join newest_dates

)

select * from final
