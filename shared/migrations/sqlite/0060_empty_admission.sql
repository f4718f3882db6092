-- Admission is in memory and rebuilt at each start from the ledger and the queue: nothing reads or writes these tables any more.
-- They stay, empty, until a later release contracts the schema; a release before this one finds them as after a loss and rebuilds.
DELETE FROM admission_orders;
DELETE FROM admission_ended;
DELETE FROM admission_sales;
