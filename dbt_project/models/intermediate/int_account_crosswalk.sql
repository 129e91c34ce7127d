{{
    config(
        materialized='incremental',
        incremental_strategy='remap',
        full_refresh=false,
        on_schema_change='append_new_columns',
        indexes=[{'columns': ['source_system', 'source_account_id'], 'unique': true}],
        post_hook="analyze {{ this }}",
    )
}}

with

account_days as (

    select * from {{ ref('int_account_days') }}

),

companies as (

    select
        *,
        max(load_seq) over (partition by crm_system) as system_load_seq
    from {{ ref('int_crm_companies') }}
    where is_latest

),

order_customers as (

    select distinct
        'orders' as source_system,
        account_id as source_account_id,
        account_id,
        true as is_active,
        true as is_preferred
    from account_days

),

crm_companies as (

    select
        crm_system as source_system,
        source_record_id as source_account_id,
        coalesce(account_number, record_id) as account_id,
        not is_archived as is_active,
        row_number() over (
            partition by coalesce(account_number, record_id)
            order by
                case when is_archived then 1 else 0 end asc, system_load_seq desc, valid_from desc, record_id asc
        ) = 1 as is_preferred
    from companies

),

final as (

    select * from order_customers
    union all
    select * from crm_companies

)

select * from final
