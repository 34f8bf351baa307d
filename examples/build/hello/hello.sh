. /app/shared/frame.sh

frame "hello, ${1:-world}"
