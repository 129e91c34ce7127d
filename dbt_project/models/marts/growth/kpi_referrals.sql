{{ config(indexes=[{'columns': ['as_of_date', 'kpi', 'dimension', 'dimension_value'], 'unique': true}]) }}

{%- set kpis = {
    'referral_conversion_rate': {
        'numerator': 'converted',
        'denominator': 'referred',
        'reason': "'no account was referred in the newest month whose windows are over'",
    },
    'referred_share_of_new_accounts': {
        'numerator': 'case when referrals_known > 0 then referred_accounts end',
        'denominator': 'new_accounts',
        'reason': "case when referrals_known = 0 then 'no referral is known'
                    else 'no account paid for the first time in the month' end",
    },
    'loyal_referred_share_of_new_accounts': {
        'numerator': 'case when referrals_known > 0 then loyal_referred_accounts end',
        'denominator': 'new_accounts',
        'reason': "case when referrals_known = 0 then 'no referral is known'
                    else 'no account paid for the first time in the month' end",
    },
} %}

-- depends_on: {{ ref('kpi_dates') }}

with

growth_dates as (

    select * from {{ ref('growth_dates') }}

),

first_referrals as (

    select min(referred_date) as first_known_on from {{ ref('stg_referrals') }}

),

referred as (

    select
        growth_dates.as_of_date,
        count(conversions.account_id) as referred,
        sum(conversions.is_converted) as converted
    from growth_dates
    left join {{ ref('account_conversions') }} as conversions
        on
            growth_dates.as_of_date = conversions.as_of_date
            and growth_dates.conversion_month = conversions.month
            and conversions.conversion = 'referral_to_paying'
    group by growth_dates.as_of_date

),

new_accounts as (

    select
        growth_dates.as_of_date,
        count(acquisitions.account_id) as new_accounts,
        coalesce(sum(acquisitions.is_referred), 0) as referred_accounts,
        coalesce(sum(acquisitions.is_referred_by_loyal), 0) as loyal_referred_accounts
    from growth_dates
    left join {{ ref('account_acquisitions') }} as acquisitions
        on
            growth_dates.as_of_date = acquisitions.as_of_date
            and growth_dates.month = acquisitions.month
    group by growth_dates.as_of_date

),

sums as (

    select
        referred.as_of_date,
        'company' as dimension,
        'all' as dimension_value,
        referred.referred,
        referred.converted,
        new_accounts.new_accounts,
        new_accounts.referred_accounts,
        new_accounts.loyal_referred_accounts,
        case when first_referrals.first_known_on <= referred.as_of_date then 1 else 0 end as referrals_known
    from referred
    inner join new_accounts on referred.as_of_date = new_accounts.as_of_date
    cross join first_referrals

),

final as (

    {{ kpi_rows('sums', kpis) }}

)

select * from final
