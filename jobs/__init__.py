"""Entry points: each is a script and a console command."""
