def planned_s(r): return 0
def run(r,p): return []
