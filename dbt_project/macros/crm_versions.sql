{#- The days a version of a CRM record holds, as two columns: from valid_from_date on, and no longer on
    valid_until_date (null for the newest). A version is known on a day when it became true before that day's end;
    of several of one day the last holds. -#}
{% macro version_days(versions) -%}
    {{ local_date(versions ~ '.valid_from') }} as valid_from_date,
    lead({{ local_date(versions ~ '.valid_from') }}) over (
        partition by {{ versions }}.record_id order by {{ versions }}.valid_from, {{ versions }}.load_seq
    ) as valid_until_date
{%- endmacro %}


{#- Whether a version holds on a day and its record is not archived then. -#}
{% macro stands_on(versions, day) -%}
    {{ versions }}.valid_from_date <= {{ day }}
    and ({{ versions }}.valid_until_date > {{ day }} or {{ versions }}.valid_until_date is null)
    and not {{ versions }}.is_archived
{%- endmacro %}


{#- All versions of an object type that belongs to a company: its keys, the properties asked for as text
    (`properties`: column → the system's name), and the days each version holds. What is read of the JSON is read once,
    below the window function; the model casts it above. -#}
{% macro crm_versions(raw_schema, entity, properties) -%}
    select
        versions.record_id,
        versions.load_seq,
        nullif(trim(versions.company_record_id), '') as company_record_id,
        versions.valid_from,
        versions.known_on,
        versions.is_archived,
        {%- for column, property in properties.items() %}
        {{ json_text('versions.properties', property) }} as {{ column }},
        {%- endfor %}
        {{ version_days('versions') }}
    from {{ source(raw_schema, entity) }} as versions
{%- endmacro %}


{#- All versions of companies, which are accounts of their own: their keys, and the properties asked for as text
    (`properties`: column → the system's name). -#}
{% macro crm_company_versions(raw_schema, entity, properties) -%}
    select
        versions.record_id,
        versions.load_seq,
        versions.valid_from,
        versions.known_on,
        versions.is_archived,
        nullif(trim(versions.account_number), '') as account_number,
        {%- for column, property in properties.items() %}
        {{ json_text('versions.properties', property) }} as {{ column }},
        {%- endfor %}
        row_number() over (
            partition by versions.record_id order by versions.valid_from desc, versions.load_seq desc
        ) = 1 as is_latest
    from {{ source(raw_schema, entity) }} as versions
{%- endmacro %}


{#- Versions of several systems as one: `models` is system → staging model, each with the columns named. A record's id
    and its company's are put behind the system's name, since two systems may use one id. -#}
{% macro crm_union(models, columns) -%}
    {%- for system, model in models.items() %}
    {% if not loop.first %}union all{% endif %}
    select
        '{{ system }}:' || record_id as record_id,
        '{{ system }}:' || company_record_id as company_record_id,
        {{ columns | join(',\n        ') }}
    from {{ model }}
    {%- endfor %}
{%- endmacro %}
