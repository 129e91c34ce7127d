with

dates_due as (

    select * from {{ ref('int_dates_due') }}

),

account_features as (

    select * from {{ ref('account_features') }}
    where as_of_date in (select dates_due.as_of_date from dates_due)

),

account_tiers as (

    select * from {{ ref('account_tiers') }}
    where as_of_date in (select dates_due.as_of_date from dates_due)

),

account_segments as (

    select * from {{ ref('account_segments') }}
    where as_of_date in (select dates_due.as_of_date from dates_due)

),

account_value_tiers as (

    select * from {{ ref('account_value_tiers') }}
    where as_of_date in (select dates_due.as_of_date from dates_due)

),

dedicated_manager_rules as (

    select * from ({{ policy_rows_on_dates('dedicated_manager_rules', key='rule', dates='dates_due') }}) as in_force
    where is_on

),

top_shares as (

    select
        as_of_date,
        max(cast(value as numeric(9, 4))) as top_share
    from dedicated_manager_rules
    where rule = 'top_share'
    group by as_of_date

),

buyers as (

    select
        as_of_date,
        account_id,
        count(*) over (partition by as_of_date) as accounts,
        row_number() over (
            partition by as_of_date
            order by net_revenue_365d desc, yearly_net_spend desc, days_since_last_order asc, account_id asc
        ) as place
    from account_features
    where net_revenue_365d > 0

),

top_accounts as (

    select
        buyers.as_of_date,
        buyers.account_id,
        'top ' || {{ as_text('cast(round(top_shares.top_share * 100) as integer)') }} || ' % by net revenue' as reason
    from buyers
    inner join top_shares on buyers.as_of_date = top_shares.as_of_date
    where buyers.place <= round(buyers.accounts * top_shares.top_share)

),

reasoned as (

    select
        account_features.as_of_date,
        account_features.account_id,
        case when tier_rules.rule is not null then 'tier ' || account_tiers.tier || '; ' else '' end
        || case when segment_rules.rule is not null then 'segment ' || account_segments.segment || '; ' else '' end
        || case
            when value_rules.rule is not null then 'value tier ' || account_value_tiers.value_tier || '; '
            else ''
        end
        || case when top_accounts.reason is not null then top_accounts.reason || '; ' else '' end as reasons
    from account_features
    left join account_tiers
        on
            account_features.as_of_date = account_tiers.as_of_date
            and account_features.account_id = account_tiers.account_id
    left join account_segments
        on
            account_features.as_of_date = account_segments.as_of_date
            and account_features.account_id = account_segments.account_id
    left join account_value_tiers
        on
            account_features.as_of_date = account_value_tiers.as_of_date
            and account_features.account_id = account_value_tiers.account_id
    left join dedicated_manager_rules as tier_rules
        on
            account_features.as_of_date = tier_rules.as_of_date
            and tier_rules.rule = 'tier'
            and account_tiers.tier = tier_rules.value
    left join dedicated_manager_rules as segment_rules
        on
            account_features.as_of_date = segment_rules.as_of_date
            and segment_rules.rule = 'segment'
            and account_segments.segment = segment_rules.value
    left join dedicated_manager_rules as value_rules
        on
            account_features.as_of_date = value_rules.as_of_date
            and value_rules.rule = 'value_tier'
            and account_value_tiers.value_tier = value_rules.value
    left join top_accounts
        on
            account_features.as_of_date = top_accounts.as_of_date
            and account_features.account_id = top_accounts.account_id

),

final as (

    select
        as_of_date,
        account_id,
        reasons <> '' as owes_dedicated_manager,
        case when reasons <> '' then substr(reasons, 1, length(reasons) - 2) end as dedicated_manager_reason
    from reasoned

)

select * from final
