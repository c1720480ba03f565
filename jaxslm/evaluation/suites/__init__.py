"""Published likelihood suites in their published layouts: one module each, `read(folder, report, **options)`.

A reader yields `Choice`s. What is wrong with a file is left out, named in the report with its cure, and counted; a
folder that is no such suite is a ValueError.
"""
