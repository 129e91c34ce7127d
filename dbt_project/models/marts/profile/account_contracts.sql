{%- set grace_days = 'cast(' ~ threshold('renewal_grace_days') ~ ' as integer)' %}

with

account_keys as (

    select * from {{ ref('account_keys') }}

),

versions as (

    select * from {{ ref('stg_contracts') }}

),

exchange_rates as (

    select * from {{ ref('stg_exchange_rates') }}

),

thresholds as (

    {{ policy_rows('thresholds', key='name') }}

),

-- A file may hold the signature of a later day in a row that it dates earlier.
contracts as (

    select
        account_keys.as_of_date,
        account_keys.account_id,
        versions.contract_id,
        versions.starts_on,
        versions.ends_on,
        versions.renews_contract_id,
        versions.contract_value * case
            when versions.currency = '{{ var("reporting_currency") }}' then 1
            else exchange_rates.rate
        end as contract_value,
        {{ local_date('versions.sent_at') }} as sent_date,
        case when versions.signed_at < {{ as_of_end() }} then {{ local_date('versions.signed_at') }} end as signed_date
    from account_keys
    inner join versions
        on
            account_keys.account_key = versions.account_key
            and {{ stands_on('versions', 'account_keys.as_of_date') }}
    left join exchange_rates
        on
            versions.currency = exchange_rates.currency
            and account_keys.as_of_date >= exchange_rates.effective_from
            and (account_keys.as_of_date < exchange_rates.effective_until or exchange_rates.effective_until is null)
    where versions.sent_at < {{ as_of_end() }} or versions.sent_at is null

),

-- Where the source tells no signature at all, none of its contracts waits for one.
signatures as (

    select count(signed_date) as signed_contracts from contracts

),

dated as (

    select
        contracts.account_id,
        contracts.contract_id,
        contracts.renews_contract_id,
        contracts.sent_date,
        contracts.signed_date,
        contracts.ends_on,
        coalesce(contracts.starts_on, contracts.signed_date) as starts_on,
        (contracts.signed_date is not null or signatures.signed_contracts = 0)
        and {{ is_in_force('contracts', 'contracts.as_of_date', grace_days) }} as is_in_force
    from contracts
    cross join signatures

),

standing as (

    select
        account_id,
        count(*) as contracts
    from dated
    where is_in_force
    group by account_id

),

-- What renews a contract; the signed one first, then the newest sent.
followers as (

    select
        contracts.contract_id,
        followers.contract_id as successor_contract_id,
        followers.sent_date as successor_sent_date,
        followers.signed_date is not null as is_followed,
        row_number() over (
            partition by contracts.contract_id
            order by
                case when followers.signed_date is not null then 0 else 1 end asc,
                followers.sent_date desc nulls last,
                followers.contract_id asc
        ) as place
    from dated as contracts
    inner join dated as followers
        on
            contracts.account_id = followers.account_id
            and contracts.contract_id <> followers.contract_id
    left join standing on contracts.account_id = standing.account_id
    where
        {{ renews(
            'followers', 'contracts',
            'case when contracts.is_in_force then standing.contracts - case when followers.is_in_force then 1 else 0 end end'
        ) }}

),

final as (

    select
        contracts.as_of_date,
        contracts.account_id,
        contracts.contract_id,
        contracts.sent_date,
        contracts.signed_date,
        case when signatures.signed_contracts > 0 then contracts.signed_date is not null end as is_signed,
        contracts.starts_on,
        contracts.ends_on,
        cast(contracts.contract_value as numeric(18, 2)) as contract_value,
        coalesce(followers.is_followed, false) as is_followed,
        followers.successor_contract_id,
        followers.successor_sent_date
    from contracts
    cross join signatures
    left join followers
        on
            contracts.contract_id = followers.contract_id
            and followers.place = 1

)

select * from final
