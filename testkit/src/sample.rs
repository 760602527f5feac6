//! Sample configurations, held against the program that reads them: each value in them is the default, and no key is left
//! out.

use serde_json::{Value, json};

/// What a program makes of a configuration, as text, or what it says is wrong.
pub type Judge<'j> = &'j dyn Fn(&str) -> Result<String, String>;

/// No key has this name, nor one like it.
const NO_KEY: &str = "zzzzzzzzzzzzzzzzzzzz";

/// A sample and how it is judged.
pub struct Sample<'j> {
    /// Its text. A line such as `# key: value` shows a key that is not set.
    pub text: &'j str,
    /// Reads configurations.
    pub judge: Judge<'j>,
    /// The least configuration.
    pub least: Value,
    /// The same, and all switched on that is off by default.
    pub base: Value,
    /// JSON pointers of what is an example: it has no default, or another.
    pub examples: &'j [&'j str],
}

impl Sample<'_> {
    /// What is wrong with it; nothing when it is as it should be.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let written = parse(self.text);
        let default = (self.judge)(&self.base.to_string()).unwrap();
        for (pointer, value) in scalars(&written) {
            let is_example = |example: &&str| {
                let rest = pointer.strip_prefix(*example);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            if self.examples.iter().any(is_example) {
                continue;
            }
            match (self.judge)(&with(&self.base, &pointer, value.clone()).to_string()) {
                Ok(found) if found == default => {}
                Ok(_) => problems.push(format!("{pointer}: {value} is not the default")),
                Err(error) => problems.push(format!("{pointer}: {error}")),
            }
        }
        problems.extend(self.idle_examples(&written));
        let shown: Vec<String> = paths(&parse(&uncommented(self.text)), "");
        let missing = self.keys("").into_iter().filter(|key| !shown.contains(key));
        problems.extend(missing.map(|key| format!("{key}: is not in the sample")));
        problems
    }

    /// Examples that are none: they are not there, or are the default.
    fn idle_examples(&self, written: &Value) -> Vec<String> {
        let default = (self.judge)(&self.least.to_string()).unwrap();
        let is_idle = |pointer: &&&str| match written.pointer(pointer) {
            None => true,
            Some(value) => {
                let found = (self.judge)(&with(&self.least, pointer, value.clone()).to_string());
                found.is_ok_and(|found| found == default)
            }
        };
        let idle = self.examples.iter().filter(is_idle);
        idle.map(|pointer| format!("{pointer}: is no example")).collect()
    }

    /// Every key that may be written below `path`, as the program itself lists them; `0` stands for the items of a list.
    fn keys(&self, path: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (item, unknown) in [("", json!({ NO_KEY: 1 })), ("/0", json!([{ NO_KEY: 1 }]))] {
            let tried = match path {
                "" if item.is_empty() => with(&self.least, &format!("/{NO_KEY}"), json!(1)),
                "" => continue,
                _ => with(&self.least, path, unknown),
            };
            let said = (self.judge)(&tried.to_string()).err().unwrap_or_default();
            let Some((_, list)) = said.split_once("the keys here are ") else {
                continue;
            };
            let list = list.lines().next().unwrap_or_default();
            for name in list.split(", ") {
                let key = format!("{path}{item}/{name}");
                found.extend(self.keys(&key));
                found.push(key);
            }
            break;
        }
        found
    }
}

fn parse(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

/// The text with every key that it shows in a comment.
fn uncommented(text: &str) -> String {
    let is_key = |line: &str| {
        line.trim_start().split_once(':').is_some_and(|(name, rest)| {
            let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            let named = !name.is_empty() && name.bytes().all(is_letter);
            named && (rest.is_empty() || rest.starts_with(' '))
        })
    };
    let line = |line: &str| match line.split_once("# ") {
        Some((indent, rest)) if indent.trim().is_empty() && is_key(rest) => format!("{indent}{rest}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// Every value that is neither a mapping nor a list of them, with its pointer.
fn scalars(value: &Value) -> Vec<(String, Value)> {
    let below = |name: &str, value: &Value| {
        let found = scalars(value).into_iter();
        found
            .map(|(pointer, value)| (format!("/{name}{pointer}"), value))
            .collect::<Vec<_>>()
    };
    match value {
        Value::Object(members) => members
            .iter()
            .flat_map(|(name, value)| below(name, value))
            .collect(),
        Value::Array(items) if items.iter().any(Value::is_object) => {
            let numbered = items.iter().enumerate();
            numbered
                .flat_map(|(at, item)| below(&at.to_string(), item))
                .collect()
        }
        scalar => vec![(String::new(), scalar.clone())],
    }
}

/// Pointers of every key; those of all items of a list count as the first's.
fn paths(value: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let key = format!("{path}/{name}");
                found.extend(paths(value, &key));
                found.push(key);
            }
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| found.extend(paths(item, &format!("{path}/0")))),
        _ => {}
    }
    found
}

/// `base` with this value at the pointer; what is missing on the way is made.
fn with(base: &Value, pointer: &str, value: Value) -> Value {
    let mut all = base.clone();
    let mut place = &mut all;
    for name in pointer.split('/').skip(1) {
        place = match name.parse::<usize>() {
            Ok(_) => {
                if !place.is_array() {
                    *place = json!([{}]);
                }
                &mut place[0]
            }
            Err(_) => {
                if !place.is_object() {
                    *place = json!({});
                }
                &mut place[name]
            }
        };
    }
    *place = value;
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program with two keys and a list.
    fn judge(text: &str) -> Result<String, String> {
        let value = parse(text);
        let known = ["life", "path", "parts"];
        let stranger = value
            .as_object()
            .unwrap()
            .keys()
            .any(|key| !known.contains(&key.as_str()));
        if stranger {
            return Err(format!("unknown key; the keys here are {}", known.join(", ")));
        }
        if value["parts"][0].get(NO_KEY).is_some() {
            return Err("unknown key; the keys here are name, size".to_owned());
        }
        let or = |key: &str, default: &str| value[key].as_str().unwrap_or(default).to_owned();
        Ok(format!(
            "{} {} {}",
            or("life", "1h"),
            or("path", "/x"),
            value["parts"]
        ))
    }

    fn problems(text: &str, examples: &[&str]) -> Vec<String> {
        let sample = Sample {
            text,
            judge: &judge,
            least: json!({}),
            base: json!({}),
            examples,
        };
        sample.problems()
    }

    #[test]
    fn other_values_missing_keys_and_idle_examples_are_told() {
        let good = "life: 1h\n# path: /x\nparts:\n  - name: a\n    # size: 3\n";
        assert_eq!(problems(good, &["/parts"]), [""; 0]);
        assert_eq!(
            problems(&good.replace("1h", "2h"), &["/parts"]),
            ["/life: \"2h\" is not the default"]
        );
        assert_eq!(
            problems(&good.replace("# path", "# no path"), &["/parts"]),
            ["/path: is not in the sample"]
        );
        assert_eq!(
            problems(&good.replace("# size", "# no size"), &["/parts"]),
            ["/parts/0/size: is not in the sample"]
        );
        assert_eq!(problems(good, &["/parts", "/life"]), ["/life: is no example"]);
    }
}
