{#- Records that name their account by a key, and contracts' dates. -#}

{#- The key by which records name the account of a mapping of the crosswalk: the customer number of the orders, or
    <system>:<record id> of a CRM. -#}
{% macro account_key(mapping) -%}
    case
            when {{ mapping }}.source_system = 'orders' then {{ mapping }}.source_account_id
            else {{ mapping }}.source_system || ':' || {{ mapping }}.source_account_id
        end
{%- endmacro %}


{#- First day of a signed contract's term; where it names none, the day it was signed. -#}
{% macro contract_start(contracts) -%}
    coalesce({{ contracts }}.starts_on, {{ local_date(contracts ~ '.signed_at') }})
{%- endmacro %}
