{#- Fails with each combination of the columns that stands more than once, or holds a null in one not `nullable`. -#}
{% test unique_combination(model, columns, nullable=[]) %}
    select {{ columns | join(', ') }}
    from {{ model }}
    group by {{ columns | join(', ') }}
    having count(*) > 1{% for column in columns if column not in nullable %} or {{ column }} is null{% endfor %}
{% endtest %}
