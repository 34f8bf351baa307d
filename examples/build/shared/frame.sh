# What both applications use: a text with a frame around it.

frame() {
    line='' rest=$1
    while [ -n "$rest" ]; do
        line="$line-" rest=${rest#?}
    done
    printf '+-%s-+\n| %s |\n+-%s-+\n' "$line" "$1" "$line"
}
