. /app/shared/frame.sh

frame "$(date -u '+%H:%M UTC')"
