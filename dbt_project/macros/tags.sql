{#- Tags are kept of two dates: the run's, and the newest built before it, which says since when a tag holds. A date that is
    built again finds the one before it; an earlier date finds none and reads all dates built up to it. -#}

{#- Pre-hook of account_tags: leaves the newest date before the run's. -#}
{% macro keep_tags_before() -%}
    {%- if is_incremental() -%}
    delete from {{ this }}
    where
        as_of_date >= {{ as_of_date() }}
        or as_of_date < (select max(before.as_of_date) from {{ this }} as before where before.as_of_date < {{ as_of_date() }})
    {%- endif -%}
{%- endmacro %}


{#- The table account_tags as the pre-hook left it; none before the first build. Not by ref: it is read while rows are added. -#}
{% macro tags_before() -%}
    {%- if execute and is_incremental() -%}
    {{ return(this) }}
    {%- endif -%}
{%- endmacro %}
