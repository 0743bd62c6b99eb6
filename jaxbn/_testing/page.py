def page(report):
    return str(report)
