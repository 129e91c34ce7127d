{{
    config(
        indexes=[{'columns': ['company_record_id']}],
        post_hook="{{ analyze_table() }}",
    )
}}

with

final as (

    select
        record_id,
        company_record_id,
        lower(opportunity_type) as opportunity_type,
        deal_stage,
        is_won,
        channel,
        created_date,
        close_date,
        valid_from_date,
        valid_until_date
    from {{ ref('int_crm_deals') }}
    where
        not is_archived
        and company_record_id is not null
        -- Of several versions of a day the last holds.
        and (valid_until_date > valid_from_date or valid_until_date is null)

)

select * from final
