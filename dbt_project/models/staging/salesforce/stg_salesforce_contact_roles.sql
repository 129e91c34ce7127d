with

versions as (

    {{ crm_versions('raw_salesforce', 'contact_roles', {
        'contact_id': 'ContactId',
        'role': 'Role',
    }) }}

),

final as (

    select
        record_id,
        load_seq,
        company_record_id,
        valid_from,
        known_on,
        is_archived,
        contact_id,
        -- Salesforce knows two kinds of decision makers, the contract one.
        case
            when role = 'Economic Decision Maker' then 'DECISION_MAKER'
            else upper(replace(role, ' ', '_'))
        end as buying_role,
        valid_from_date,
        valid_until_date
    from versions

)

select * from final
