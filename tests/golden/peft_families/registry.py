"""The table of families: name of the folder → the function that makes its cases."""

FAMILIES = {}
SIX = ["query", "key", "value", "dense"]
QV = ["query", "value"]
# A few of each shape: square, wide, tall.
FEW = ["layer.0.attention.self.query", "layer.1.intermediate.dense", "layer.1.output.dense"]
SEQ, TOK, QA = "BertForSequenceClassification", "BertForTokenClassification", "BertForQuestionAnswering"


def family(name):
    def add(cases):
        FAMILIES[name] = cases
        return cases
    return add
