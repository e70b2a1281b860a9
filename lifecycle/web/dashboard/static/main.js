// What moves on the pages. Everything works without it.
import { prepareDialogs } from "./dialogs.js";
import { prepareList } from "./list.js";
import { follow } from "./live.js";
import { prepareTheme } from "./themes.js";
import { keepTime } from "./times.js";

prepareTheme();
prepareDialogs();
prepareList();
keepTime();
follow();
