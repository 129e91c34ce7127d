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


{#- Whether a signed contract holds its account on a day: until its grace is over. -#}
{% macro is_in_force(contracts, day, grace_days) -%}
    ({{ contracts }}.ends_on is null or {{ day }} <= {{ days_before(contracts ~ '.ends_on', '-' ~ grace_days) }})
{%- endmacro %}


{#- Whether one contract of an account renews another, be it signed or only sent: it names it, or begins and ends later. One without
    an end that names none renews what it begins after, where that alone holds the account (`in_force`: how many contracts do, but for
    itself): of several it cannot be told which. One whose begin is not known begins later (docs/decisions/0044). -#}
{% macro renews(renewal, contract, in_force) -%}
    {{ renewal }}.renews_contract_id = {{ contract }}.contract_id
            or (
                ({{ renewal }}.starts_on > {{ contract }}.starts_on or {{ renewal }}.starts_on is null)
                and (
                    {{ renewal }}.ends_on > {{ contract }}.ends_on
                    or (
                        {{ renewal }}.ends_on is null
                        and {{ renewal }}.renews_contract_id is null
                        and {{ contract }}.ends_on is not null
                        and {{ in_force }} = 1
                    )
                )
            )
{%- endmacro %}
