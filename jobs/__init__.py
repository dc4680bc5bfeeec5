"""Entry points, each a script and a console command."""
