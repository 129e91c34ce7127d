with

account_keys as (

    select * from {{ ref('account_keys') }}

),

account_features as (

    select * from {{ ref('account_features') }}
    where as_of_date = {{ as_of_date() }}

),

account_contracts as (

    select
        *,
        row_number() over (partition by account_id order by starts_on desc, contract_id desc) as newness
    from {{ ref('account_contracts') }}
    where
        contract_value is not null
        and starts_on is not null
        and ends_on >= starts_on
        and (is_signed or is_signed is null)

),

profile_rules as (

    {{ policy_rows('profile_rules', key='name') }}

),

-- Who was referred may be told twice; the first one to have referred it counts.
referrals as (

    select
        referrers.account_id,
        referred.account_id as referred_account_id,
        versions.referral_id,
        versions.referred_date,
        row_number() over (
            partition by referred.account_id order by versions.referred_at, versions.referral_id
        ) as place
    from {{ ref('stg_referrals') }} as versions
    inner join account_keys as referrers on versions.account_key = referrers.account_key
    inner join account_keys as referred on versions.referred_account_key = referred.account_key
    where
        {{ stands_on('versions', as_of_date()) }}
        and referrers.account_id <> referred.account_id

),

final as (

    select
        {{ as_of_date() }} as as_of_date,
        referrals.account_id,
        referrals.referral_id,
        referrals.referred_account_id,
        referrals.referred_date,
        account_features.first_order_date,
        account_contracts.contract_id as fee_contract_id,
        -- A contract's yearly fee is its value over its days; without one, what the account brought in the last year.
        cast(
            case
                when account_contracts.contract_id is not null
                    then
                        account_contracts.contract_value * {{ days_per_year() }}
                        / ({{ days_between('account_contracts.starts_on', 'account_contracts.ends_on') }} + 1)
                else account_features.net_revenue_365d
            end as numeric(18, 2)
        ) as yearly_fee
    from referrals
    inner join account_features on referrals.referred_account_id = account_features.account_id
    left join account_contracts
        on
            referrals.referred_account_id = account_contracts.account_id
            and account_contracts.newness = 1
    where
        referrals.place = 1
        and account_features.first_order_date >= referrals.referred_date
        and account_features.first_order_date
        > {{ days_before(as_of_date(), 'cast(' ~ threshold('referral_reward_days', 'profile_rules') ~ ' as integer)') }}

)

select * from final
