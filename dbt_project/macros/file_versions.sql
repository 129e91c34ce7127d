{#- All versions of a record that files hold: its keys, the properties asked for as text (`properties`, the names of the
    contract), the days each version holds, and whether it is the newest. `owner` is the column that says whose it is,
    where there is one. The model casts what it reads, above. -#}
{% macro file_versions(entity, properties, owner=none) -%}
    select
        versions.record_id,
        versions.load_seq,
        {%- if owner %}
        nullif(trim(versions.{{ owner }}), '') as {{ owner }},
        {%- endif %}
        versions.valid_from,
        versions.known_on,
        versions.is_archived,
        {%- for property in properties %}
        {{ json_text('versions.properties', property) }} as {{ property }},
        {%- endfor %}
        row_number() over (
            partition by versions.record_id order by versions.valid_from desc, versions.load_seq desc
        ) = 1 as is_latest,
        {{ version_days('versions') }}
    from {{ source('raw_files', entity) }} as versions
{%- endmacro %}
