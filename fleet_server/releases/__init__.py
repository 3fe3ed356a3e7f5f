"""Images for devices, as a TUF repository made with python-tuf: persons sign what may be installed, where no network
reaches; the server signs only what is newest.
"""
