"""``python -m charter``."""

from charter.cli.main import main

main()
